// cluster.mjs: a cluster of real processes in a temporary directory, gone when the test is over.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';

export const parley = resolve(process.env.PARLEY ?? 'build/asan/parley');
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
export const now = () => performance.now();

// Wait until check() gives something true, and give it back. tell() is added to the complaint.
export async function until(what, check, ms = 20000, tell = () => '') {
  const end = now() + ms;
  for (;;) {
    const got = await check();
    if (got) return got;
    if (now() > end) throw new Error(`not in ${ms} ms: ${what}\n${tell()}`);
    await sleep(20);
  }
}

const bindable = (port) =>
  new Promise((done) => {
    const probe = createServer();
    probe.once('error', () => done(false));
    probe.listen({ port, host: '127.0.0.1' }, () => probe.close(() => done(true)));
  });

// A port for the edges with the nodes' ports (1000 above it) free too; below the range the kernel gives to clients.
async function freePort(nodes) {
  for (let tries = 0; tries < 200; tries++) {
    const port = 20000 + Math.floor(Math.random() * 10000);
    const all = [port, ...Array.from({ length: nodes }, (_, i) => port + 1000 + i)];
    if ((await Promise.all(all.map(bindable))).every(Boolean)) return port;
  }
  throw new Error('no free port');
}

const living = new Set(); // processes and directories to take away, whatever happens
const directories = new Set();
process.on('exit', () => {
  for (const child of living) signal(child, 'SIGKILL');
  for (const dir of directories) rmSync(dir, { recursive: true, force: true });
});
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => process.exit(1));

// To the process and what it has started (strace its tracee).
function signal(child, name) {
  try {
    process.kill(-child.pid, name);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

// A process that ends with the test, in a group of its own.
export function run(command, args, options) {
  const child = spawn(command, args, { ...options, detached: true });
  living.add(child);
  child.ended = new Promise((done) => {
    child.once('error', (error) => done({ error }));
    child.once('exit', (code, signal) => done({ code, signal }));
  }).finally(() => living.delete(child));
  return child;
}

export class Cluster {
  // env: per node name, or `all`: settings like { STORE_FREE_MIN_MIB: 0 }. binary: of nodes and commands; c.binaries[name] is
  // another one for a node, from its next start.
  static async make({ edges = 2, routers = 2, shards = 1, replicas = 1, env = {}, binary = parley } = {}) {
    const c = new this();
    c.binary = binary;
    c.binaries = {};
    c.data = mkdtempSync(join(tmpdir(), 'parley-live-'));
    directories.add(c.data);
    c.port = await freePort(routers + shards * replicas + 1);
    c.env = env;
    c.nodes = {}; // name -> { role, child }
    c.wrap = {}; // name -> command before the binary
    c.exits = []; // of nodes that ended when nobody killed them
    execFileSync(binary, ['init', '--data', c.data, '--edges', edges, '--routers', routers, '--shards', shards, '--replicas', replicas, '--port', c.port]);
    mkdirSync(join(c.data, 'log'));
    for (const line of execFileSync(binary, ['config', 'nodes', join(c.data, 'cluster.conf')], { encoding: 'utf8' }).split('\n')) {
      const [name, role, , shard] = line.trim().split(/\s+/);
      if (['store', 'router', 'edge'].includes(role)) c.nodes[name] = { role, child: null, ...(role === 'store' && { shard: Number(shard) }) };
    }
    return c;
  }

  // A running one: a message has gone through it. Call stop in the test's after.
  static async up(options) {
    const c = await this.make(options);
    try {
      for (const name of c.names()) c.start(name);
      await c.wait();
    } catch (error) {
      await c.stop({ quiet: true });
      throw error;
    }
    return c;
  }

  names(role) { // in the order they start
    const order = ['store', 'router', 'edge'];
    return Object.keys(this.nodes)
      .filter((name) => !role || this.nodes[name].role === role)
      .sort((a, b) => order.indexOf(this.nodes[a].role) - order.indexOf(this.nodes[b].role));
  }

  // Start a node; extra: { args, env, keys } for one that is not like the others.
  start(name, extra = {}) {
    const node = this.nodes[name];
    assert.ok(!node.child, `${name} runs already`);
    const settings = { ...this.env.all, ...this.env[name], ...this.env[node.role], ...extra.env };
    const env = { ...process.env };
    for (const [key, value] of Object.entries(settings)) env[key.includes('OPTIONS') ? key : `PARLEY_${key}`] = String(value);
    const words = [...(this.wrap[name] ?? []), this.binaries[name] ?? this.binary, node.role, '--conf', join(this.data, 'cluster.conf'), '--keys',
      extra.keys ?? join(this.data, 'keys'), '--node', name, '--data', this.data];
    const log = openSync(this.logFile(name), 'a');
    const child = run(words[0], words.slice(1), { env, stdio: ['ignore', log, log] });
    closeSync(log);
    node.child = child;
    node.ended = child.ended.then((how) => {
      if (node.child === child) node.child = null;
      if (!child.expected) this.exits.push({ name, ...how });
      return how;
    });
    return child;
  }

  // Where a client connects: to any edge, they share a port here.
  address() {
    return { host: '127.0.0.1', port: this.port };
  }

  // One message from and to a user of its own.
  async wait() {
    const { host, port } = this.address();
    const child = run(this.binary, ['wait', '--data', this.data, '--url', `ws://${host}:${port}/v1/ws`, '--limit', 30], { stdio: ['ignore', 'ignore', 'inherit'] });
    const { code } = await child.ended;
    if (code !== 0) throw new Error(`no message went through the cluster\n${this.tails()}`);
  }

  // A signal that ends nothing: SIGSTOP, SIGCONT.
  signal(name, what) {
    signal(this.nodes[name].child, what);
  }

  // kill -9. Resolves when it is gone.
  async kill(name) {
    const { child, ended } = this.nodes[name];
    child.expected = true;
    signal(child, 'SIGKILL');
    await ended;
  }

  // SIGTERM. Resolves with { code, signal, ms } when it is gone; kills after 40 s.
  async term(name) {
    const { child, ended } = this.nodes[name];
    const begin = now();
    child.expected = true;
    signal(child, 'SIGTERM');
    const timer = setTimeout(() => signal(child, 'SIGKILL'), 40000);
    const how = await ended;
    clearTimeout(timer);
    return { ...how, ms: Math.round(now() - begin) };
  }

  // Resolves when a node has ended by itself, or fails after ms.
  async gone(name, ms = 20000) {
    const { child, ended } = this.nodes[name];
    child.expected = true;
    let timer;
    const late = new Promise((_, fail) => {
      timer = setTimeout(() => fail(new Error(`${name} did not end in ${ms} ms\n${this.tail(name)}`)), ms);
    });
    return Promise.race([ended, late]).finally(() => clearTimeout(timer));
  }

  // Does this store lead its shard, as far as the logs say? Of several that say so the highest term does.
  leads(name) {
    const { shard } = this.nodes[name];
    if (shard === undefined) return false;
    const term = (store) => Number([...this.log(store).matchAll(/ event=leading shard=\d+ term=(\d+)/g)].at(-1)?.[1] ?? 0);
    const terms = this.names('store').filter((store) => this.nodes[store].shard === shard).map(term);
    return term(name) > 0 && term(name) === Math.max(...terms);
  }

  logFile(name) {
    return join(this.data, 'log', `${name}.log`);
  }

  log(name) {
    return existsSync(this.logFile(name)) ? readFileSync(this.logFile(name), 'utf8') : '';
  }

  tail(name, lines = 12) {
    return `--- ${name}\n${this.log(name).trimEnd().split('\n').slice(-lines).join('\n')}\n`;
  }

  tails() {
    return this.names().map((name) => this.tail(name)).join('');
  }

  // Made here, not by the binary: a second hand at the same signature.
  token(user, { name, seconds = 3600 } = {}) {
    const part = (object) => Buffer.from(JSON.stringify(object)).toString('base64url');
    const claims = { sub: user, exp: Math.floor(Date.now() / 1000) + seconds, ...(name && { name }) };
    const head = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
    const key = readFileSync(join(this.data, 'token.key'), 'utf8').trimEnd();
    return `${head}.${createHmac('sha256', key).update(head).digest('base64url')}`;
  }

  // Metrics of every node that answers, as text.
  metrics() {
    return execFileSync(this.binary, ['status', '--metrics', '--data', this.data], { encoding: 'utf8' });
  }

  // Ends every node. Unless quiet: each must leave with 0, nothing must have ended by itself or been found by a sanitizer.
  // keep: the data stays until the process ends or stop is called again.
  async stop({ quiet = false, keep = false } = {}) {
    const bad = [];
    for (const role of ['edge', 'router', 'store']) {
      await Promise.all(this.names(role).filter((name) => this.nodes[name].child).map(async (name) => {
        const how = await (quiet ? this.kill(name) : this.term(name));
        if (!quiet && how.code !== 0) bad.push(`${name} ended with ${how.code ?? how.signal}`);
      }));
    }
    for (const { name, code, signal, error } of this.exits) bad.push(`${name} ended by itself: ${error ?? code ?? signal}`);
    for (const name of this.names()) {
      const found = /^.*(AddressSanitizer|LeakSanitizer|runtime error|Assertion).*$/m.exec(this.log(name));
      if (found) bad.push(`${name}: ${found[0]}`);
    }
    const tails = bad.length > 0 ? this.names().map((name) => this.tail(name, 60)).join('') : '';
    if (!keep) {
      rmSync(this.data, { recursive: true, force: true });
      directories.delete(this.data);
    }
    if (!quiet) assert.ok(bad.length === 0, `${bad.join('\n')}\n${tails}`);
  }
}

// The body of GET path, from whichever edge answers.
export function get(port, path) {
  return new Promise((done, fail) => {
    let text = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n`));
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => (text += chunk));
    socket.on('error', fail);
    socket.on('close', () => {
      const at = text.indexOf('\r\n\r\n');
      done({ status: Number(text.slice(9, 12)), head: text.slice(0, at), body: text.slice(at + 4) });
    });
  });
}
