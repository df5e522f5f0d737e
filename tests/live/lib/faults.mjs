// faults.mjs: what happens to nodes and to the network between them in a chaos run. Every fault begins, lasts and is healed;
// several are under way at a time, a node has one of its own at most. Which, whom and for how long comes from a seed.
import { spawn, spawnSync } from 'node:child_process';
import { now, sleep } from './cluster.mjs';

const DISK_WAIT_MS = 20000; // until a store has met its failing sync

// May this machine trace processes? strace faults need it.
export function canTrace() {
  return spawnSync('strace', ['-q', '-o', '/dev/null', '-e', 'inject=fdatasync:error=EIO', 'true'], { stdio: 'ignore' }).status === 0;
}

export class Faults {
  // say: is told of each fault, a line. only: kinds, if not all. atOnce: how many are under way at most.
  // clients: devices whose connection may break.
  constructor(cluster, { random, traces = true, only, atOnce = 4, clients = [], say = () => {} }) {
    Object.assign(this, { cluster, random, atOnce, clients });
    this.say = (line) => {
      if (this.beginning) this.beginning.text ??= line;
      say(line);
    };
    this.busy = new Set(); // nodes with a fault of their own
    this.running = new Set();
    this.done = []; // { kind, text, at, until }
    this.bad = []; // what no fault explains
    this.kinds = [
      ['kill', 8, () => this.kill()],
      ['kill-shard', 2, () => this.killShard()],
      ['kill-all', 1, () => this.killAll()],
      ['stop', 6, () => this.stop()],
      ['restart', 5, () => this.restart()],
      ['cut', 6, () => this.cut(true)],
      ['cut-one-way', 5, () => this.cut(false)],
      ['cut-leader', 4, () => this.cutLeader()],
      ...(clients.length > 0 ? [['drop', 6, () => this.drop()]] : []),
      ...(traces ? [['disk-eio', 3, () => this.diskFails()], ['disk-full', 2, () => this.diskFull()]] : []),
    ].filter(([kind]) => !only || only.includes(kind));
    this.pairs = this.pairsOf();
  }

  // ---- chance ----

  any(list) {
    return list[Math.floor(this.random() * list.length)];
  }

  ms(from, to) {
    return from + this.random() * (to - from);
  }

  choose() {
    let at = this.random() * this.kinds.reduce((sum, [, weight]) => sum + weight, 0);
    return this.kinds.find(([, weight]) => (at -= weight) < 0) ?? this.kinds[0];
  }

  // Nodes that talk to each other.
  pairsOf() {
    const { cluster } = this;
    const [stores, routers, edges] = ['store', 'router', 'edge'].map((role) => cluster.names(role));
    return [
      ...stores.flatMap((a) => stores.filter((b) => a < b && cluster.nodes[a].shard === cluster.nodes[b].shard).map((b) => [a, b])),
      ...routers.flatMap((a) => stores.map((b) => [a, b])),
      ...edges.flatMap((a) => routers.map((b) => [a, b])),
    ];
  }

  free(names = this.cluster.names()) {
    return names.filter((name) => !this.busy.has(name) && this.cluster.nodes[name].child);
  }

  // A free node; every other time one that leads, if there is one free: that is where faults hurt.
  one(names) {
    const free = this.free(names);
    const leaders = free.filter((name) => this.cluster.leads(name));
    const list = leaders.length > 0 && this.random() < 0.4 ? leaders : free;
    return list.length > 0 ? this.any(list) : null;
  }

  // ---- the run ----

  // Faults for ms; resolves when all are healed.
  async run(ms) {
    for (const end = now() + ms; now() < end;) {
      await sleep(this.ms(200, 2200));
      if (this.running.size < this.atOnce) this.begin();
    }
    await Promise.all(this.running);
  }

  begin() {
    const [kind, , run] = this.choose();
    const fault = { kind, at: now() };
    this.beginning = fault; // what it says before it waits for anything is its text
    const begun = run();
    this.beginning = null;
    const promise = begun.then((what) => {
      if (!what) return; // nobody was free for it
      fault.until = now();
      this.done.push(fault);
    }).catch((error) => this.bad.push(`${kind}: ${error.stack}`)).finally(() => this.running.delete(promise));
    this.running.add(promise);
  }

  // work(names) with the nodes held; nothing when one of them is not free.
  async hold(names, work) {
    if (names.length === 0 || names.some((name) => !name || this.busy.has(name))) return false;
    for (const name of names) this.busy.add(name);
    try {
      await work(names);
    } finally {
      for (const name of names) {
        if (!this.cluster.nodes[name].child) this.cluster.start(name);
        this.busy.delete(name);
      }
    }
    return true;
  }

  // ---- processes ----

  kill() {
    return this.hold([this.one()], async ([name]) => {
      this.say(`kill ${name}`);
      await this.cluster.kill(name);
      await sleep(this.random() < 0.3 ? 0 : this.ms(0, 5000));
    });
  }

  killMany(what, names, longest) {
    return this.hold(names, async () => {
      this.say(`${what} ${names.join(' ')}`);
      await Promise.all(names.map((name) => this.cluster.kill(name)));
      await Promise.all(names.map(async (name) => {
        await sleep(this.ms(0, longest));
        this.cluster.start(name);
      }));
    });
  }

  killShard() {
    const stores = this.cluster.names('store');
    const shard = this.cluster.nodes[this.any(stores)].shard;
    return this.killMany('kill-shard', stores.filter((name) => this.cluster.nodes[name].shard === shard), 2500);
  }

  killAll() {
    return this.killMany('kill-all', this.cluster.names(), 1000);
  }

  stop() {
    return this.hold([this.one()], async ([name]) => {
      const ms = this.ms(500, 8000);
      this.say(`stop ${name} for ${Math.round(ms)} ms`);
      this.cluster.signal(name, 'SIGSTOP');
      await sleep(ms);
      this.cluster.signal(name, 'SIGCONT');
    });
  }

  restart() {
    return this.hold([this.one()], async ([name]) => {
      this.say(`restart ${name}`);
      const { code, signal, ms } = await this.cluster.term(name);
      if (code !== 0) this.bad.push(`${name} ended with ${code ?? signal} after SIGTERM and ${ms} ms`);
      await sleep(this.random() < 0.5 ? 0 : this.ms(0, 3000));
    });
  }

  // ---- the network ----

  async cutFor(ways, ms) {
    this.say(`cut ${ways.map((way) => way.join('>')).join(' ')} for ${Math.round(ms)} ms`);
    for (const [from, to] of ways) this.cluster.cut(from, to);
    await sleep(ms);
    for (const [from, to] of ways) this.cluster.mend(from, to);
    return true;
  }

  cut(both) {
    const [a, b] = this.random() < 0.5 ? this.any(this.pairs) : [...this.any(this.pairs)].reverse();
    return this.cutFor(both ? [[a, b], [b, a]] : [[a, b]], this.ms(1000, 10000));
  }

  // Devices lose their connection, as in a tunnel.
  async drop() {
    const some = this.clients.filter(() => this.random() < 0.3);
    this.say(`drop ${some.map((client) => `${client.user}/${client.device}`).join(' ') || 'nobody'}`);
    for (const client of some) client.lost('dropped');
    return some.length > 0;
  }

  // A leader alone: its peers do not hear it, or it them, while routers do.
  async cutLeader() {
    const leaders = this.cluster.names('store').filter((name) => this.cluster.leads(name));
    if (leaders.length === 0) return false;
    const leader = this.any(leaders);
    const peers = this.pairs.filter((pair) => pair.includes(leader)).map((pair) => pair.find((name) => name !== leader))
      .filter((name) => this.cluster.nodes[name].role === 'store');
    const way = Math.floor(this.random() * 3); // out, in, both
    return this.cutFor(peers.flatMap((peer) => [...(way !== 1 ? [[leader, peer]] : []), ...(way !== 0 ? [[peer, leader]] : [])]), this.ms(1000, 10000));
  }

  // ---- disks ----

  // The n-th sync of a running store and all after it fail, until strace is told to go.
  trace(name, inject) {
    const child = spawn('strace', ['-f', '-q', '-o', '/dev/null', '-e', 'trace=fdatasync', '-e', `inject=fdatasync:${inject}`, '-p', this.cluster.nodes[name].child.pid], { stdio: 'ignore' });
    const gone = new Promise((done) => child.once('exit', done));
    return { gone, end: () => (child.kill('SIGTERM'), gone) };
  }

  // A sync fails: the store must end by itself, not with 0.
  diskFails() {
    return this.hold([this.one(this.cluster.names('store'))], async ([name]) => {
      this.say(`disk-eio ${name}`);
      const { child, ended } = this.cluster.nodes[name];
      child.expected = true;
      const trace = this.trace(name, `error=EIO:when=${1 + Math.floor(this.random() * 20)}+`);
      const how = await Promise.race([ended, sleep(DISK_WAIT_MS)]);
      await trace.end();
      if (!how) {
        child.expected = false; // it had nothing to sync in all that time
        this.say(`disk-eio ${name}: no sync met it`);
      } else if (!(how.code > 0)) {
        this.bad.push(`${name} ended with ${how.code ?? how.signal} after a failed sync`);
      }
      await sleep(this.ms(0, 5000));
    });
  }

  // Syncs say ENOSPC for a while: the store refuses, looks again and goes on by itself.
  diskFull() {
    return this.hold([this.one(this.cluster.names('store'))], async ([name]) => {
      const ms = this.ms(1000, 4000);
      this.say(`disk-full ${name} for ${Math.round(ms)} ms`);
      const trace = this.trace(name, 'error=ENOSPC:when=1+');
      await sleep(ms);
      await trace.end();
    });
  }
}
