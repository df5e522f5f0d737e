// The operator's commands on a cluster that is in use: nobody who talks loses a line, gets one twice or in another order.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Cluster, parley, run, sleep, until } from '../lib/cluster.mjs';

const log = 'tests/data/ubuntu-irc/2004-12-25.train-c.txt';
const SPEED = 12; // lines a second: it lasts as long as the operator is at work
const DRAIN_MS = 2000; // edge.drain_ms here; 20,000 by default
let cluster, replay, over;

// Like systemd with Restart=always.
function supervise(name) {
  const { child, ended } = cluster.nodes[name];
  child.expected = true;
  ended.then(({ code, signal }) => {
    if (over) return;
    if (code !== 0) cluster.exits.push({ name, code, signal });
    cluster.start(name);
    supervise(name);
  });
}

before(async () => {
  cluster = await Cluster.up({ edges: 2, routers: 2, replicas: 3, env: { edge: { EDGE_DRAIN_MS: DRAIN_MS } } });
  for (const name of cluster.names()) supervise(name);
  const child = run(parley, ['replay', log, '--speed', SPEED, '--port', cluster.port, '--data', cluster.data, '--patience', '30'], { stdio: ['ignore', 'pipe', 'pipe'] });
  replay = { child, out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (text) => (replay.out += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (replay.err += text));
});

after(async () => {
  over = true;
  await cluster?.stop({ quiet: true });
});

// parley cluster ...: { code, out, err }.
function operate(...words) {
  return new Promise((done) => {
    execFile(parley, ['cluster', ...words, '--data', cluster.data], { encoding: 'utf8' }, (error, out, err) => done({ code: error?.code ?? 0, out, err }));
  });
}

async function done(...words) {
  const { code, out, err } = await operate(...words);
  assert.equal(code, 0, `${words.join(' ')}: ${out}${err}${cluster.tails()}`);
  console.log(`# ${out.trimEnd().split('\n').join('\n# ')}`);
  return out;
}

async function status() {
  return JSON.parse((await operate('status', '--json')).out);
}

const green = (what) => until(what, async () => (await status()).green, 60000, () => cluster.tails());
const playing = () => assert.equal(replay.child.exitCode, null, `the talk is over already: ${replay.out}${replay.err}`);

test('a whole cluster is green', async () => {
  await green('all is well');
  const { code, out } = await operate('status');
  assert.equal(code, 0, out);
  assert.match(out, /^shard 0: leader store[123], term \d+, 3 of 3 voters, 4096 slots$/m);
  assert.match(out, /^edge2 +edge +- +up /m);
  assert.match(out, /^green$/m);
});

test('the leadership goes where it is told to', async () => {
  const { shards: [{ leader }] } = await status();
  const to = leader === 'store2' ? 'store3' : 'store2';
  assert.match(await done('transfer-leader', '0', to), new RegExp(`^${to} leads shard 0 now`));
  assert.equal((await status()).shards[0].leader, to);
  const { code, err } = await operate('transfer-leader', '0', 'router1');
  assert.equal(code, 1);
  assert.match(err, /no store of this shard 'router1'/);
});

test('a router is drained and comes back', async () => {
  const started = (await status()).nodes.find(({ name }) => name === 'router1').started_ms;
  assert.match(await done('drain', 'router1'), /^router1 drained in \d/);
  await green('it is back');
  assert.notEqual((await status()).nodes.find(({ name }) => name === 'router1').started_ms, started);
  assert.match(cluster.log('router1'), /event=drained_by operator=operator/);
});

test('a store is taken out, stays out when it starts anew, and is added again', async () => {
  const { shards: [{ leader }] } = await status();
  assert.match(await done('remove-store', leader), /is out of shard 0, which has 2 voters now/); // it hands over first
  const { code, out } = await operate('status');
  assert.equal(code, 1);
  assert.match(out, new RegExp(`^! ${leader} was taken out of shard 0`, 'm'));
  await cluster.term(leader); // the supervisor starts it again
  await until('it runs', async () => (await status()).nodes.find(({ name }) => name === leader).up);
  await sleep(6 * 250); // one that may join says so every STORE_GROUP_TELL_MS
  const { shards: [{ members, voters }] } = await status();
  assert.equal(voters, 2);
  assert.equal(members.find(({ node }) => node === leader).role, 'taken out');
  assert.match(await done('add-store', leader), /is a voter of shard 0/);
  await green('three voters');
  playing();
});

test('a node that is down is said to be', async () => {
  over = true; // nobody starts it
  await cluster.kill('router2');
  const { code, out } = await operate('status');
  assert.equal(code, 1);
  assert.match(out, /^! router2 is down$/m);
  const rolled = await operate('roll');
  assert.equal(rolled.code, 1);
  assert.match(rolled.err, /roll: stopped: before it began the cluster is not whole/);
  over = false;
  cluster.start('router2');
  supervise('router2');
  await green('it is back');
});

test('a router and a shard are added to the config, and everybody learns of them by a roll', async () => {
  const port = cluster.port + 1000 + 20;
  assert.match(await done('add-router', 'router3', '--endpoint', `tcp://127.0.0.1:${port}`), /parley cluster roll/);
  assert.match(readFileSync(join(cluster.data, 'cluster.conf'), 'utf8'), /^ {4}router3$/m);
  assert.equal((await operate('add-router', 'router3', '--endpoint', `tcp://127.0.0.1:${port}`)).code, 1);
  await done('add-store', 'store4', '--shard', '1', '--endpoint', `tcp://127.0.0.1:${port + 1}`);
  for (const [name, role] of [['store4', 'store'], ['router3', 'router']]) {
    cluster.nodes[name] = { role, child: null, ...(role === 'store' && { shard: 1 }) };
    cluster.start(name);
    supervise(name);
  }
  const before = await status();
  assert.ok(before.problems.some((line) => /store1 runs with another config/.test(line)), before.problems.join('\n'));
  const out = await done('roll');
  playing();
  assert.match(out, /rolled: 7 nodes/); // the new ones have read the new config
  const after = await status();
  assert.ok(after.green, after.problems.join('\n'));
  for (const { name, started_ms, live } of after.nodes) {
    if (name === 'router3') assert.ok(live);
    else if (name !== 'store4') assert.notEqual(started_ms, before.nodes.find((node) => node.name === name).started_ms, `${name} was not restarted`);
  }
});

test('slots move to the new shard', async () => {
  assert.match(await done('move-slots', '--to', '1', '--count', '40'), /^40 slots moved; shard 1 has 40$/m);
  assert.match(await done('move-slots', '--to', '0', '--slots', '4090-4095'), /^6 slots moved; shard 0 has 4062$/m);
  const { shards } = await status();
  assert.deepEqual(shards.map(({ slots }) => slots), [4062, 34]);
  await green('all is well');
});

test('nobody noticed more than a pause', async () => {
  const { code } = await replay.child.ended;
  const last = replay.out.trimEnd().split('\n').at(-1);
  console.log(`# ${last}`);
  assert.match(last, /^replayed \d+ lines, [1-9]\d* deliveries, 0 missing, 0 doubled, 0 reordered$/, `${replay.err}${cluster.tails()}`);
  assert.equal(code, 0);
  over = true;
  await cluster.stop();
});
