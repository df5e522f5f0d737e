// What a version does that meets a later one, shown by binaries that differ in nothing but their numbers (scripts/versions.sh):
// it refuses data it cannot read, log entries it does not know and links it cannot speak on, says so, and hurts nobody else.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Client } from './lib/client.mjs';
import { Cluster, parley, until } from './lib/cluster.mjs';
import { Load } from './lib/load.mjs';
import { version } from './lib/versions.mjs';

const [later, apart, narrow] = ['later', 'apart', 'narrow'].map((name) => version(name).binary);
let cluster, load, old;

const tell = () => load.describe();
const env = { all: { STORE_FREE_MIN_MIB: 0 }, edge: { EDGE_DRAIN_MS: 1000 } };

before(async () => {
  cluster = await Cluster.up({ edges: 2, routers: 2, replicas: 3, env });
  load = await Load.start(cluster, { users: 4, devices: [2], seed: 5, pause: 100, patient: true });
  load.talk();
});

after(async () => {
  load?.stop();
  await cluster?.stop({ quiet: true });
  await old?.stop({ quiet: true });
});

async function restart(name, binary) {
  if (cluster.nodes[name].child) assert.equal((await cluster.term(name)).code, 0, tell());
  cluster.binaries[name] = binary;
  cluster.start(name);
}

const leader = () => cluster.names('store').find((name) => cluster.nodes[name].child && cluster.leads(name));
const followers = () => cluster.names('store').filter((name) => name !== leader());
const operate = (binary, ...words) => spawnSync(binary, ['cluster', ...words, '--data', cluster.data], { encoding: 'utf8' });
const green = () => until('green', () => operate(parley, 'status').status === 0, 30000, tell);
const metric = (text, node, name) => Number(new RegExp(`^parley_${name}\\{node="${node}"[^}]*\\} (\\d+)`, 'm').exec(text)?.[1]);

async function goesOn() {
  await load.acked(20);
}

test('data of a later format is refused with words, and stays as it was', async () => {
  old = await Cluster.up({ edges: 1, routers: 1, env, binary: apart });
  const ann = new Client(old, 'ann');
  await ann.start();
  const { chat, seq } = await ann.send({ to: 'bob' }, 'kept');
  ann.stop();
  const dir = join(old.data, 'backup');
  const made = spawnSync(apart, ['backup', '--data', old.data, '--to', dir], { encoding: 'utf8' });
  assert.equal(made.status, 0, made.stderr);
  await old.term('store1');
  for (let i = 0; i < 2; i++) {
    old.binaries.store1 = parley;
    old.start('store1');
    assert.equal((await old.gone('store1')).code, 2, old.tails());
    const line = old.log('store1').trimEnd().split('\n').findLast((text) => /event=data_refused/.test(text));
    assert.match(line, /it was written by a later version \(format (\d+), this one knows up to \d+\); downgrade is not possible/);
    assert.match(line, /next="nothing was changed; run that version again, or restore a backup"/);
  }
  const restored = spawnSync(parley, ['restore', dir, '--data', old.data], { encoding: 'utf8' });
  assert.equal(restored.status, 1);
  assert.match(restored.stderr, /its data is of another format; restore it with the version that made it/);
  old.binaries.store1 = apart;
  old.start('store1');
  await old.wait();
  const again = new Client(old, 'ann', { device: 'fresh' });
  await again.start();
  const { messages } = await again.history(chat);
  assert.equal(messages.find((m) => m.seq === seq)?.body, 'kept');
  again.stop();
});

test('data of an earlier format is refused with words too', async () => {
  const name = followers()[0];
  await cluster.term(name);
  cluster.binaries[name] = apart;
  cluster.start(name);
  assert.equal((await cluster.gone(name)).code, 2, tell());
  assert.match(cluster.tail(name), /event=data_refused .*it was written by an earlier version \(format \d+, this one knows only \d+\)/);
  await goesOn();
  await restart(name, parley);
  await green();
});

test('a router of another release is refused by all, both sides say which versions they speak, and the others carry on', async () => {
  await restart('router2', apart);
  const words = /event=hello_refused .*reason="it speaks versions \d+ to \d+ of node links and this node \d+ to \d+; upgrade the older"/;
  for (const name of cluster.names()) {
    if (name === 'router1') continue; // routers do not talk to each other
    const claimed = name === 'router2' ? 'store' : 'router2';
    await until(`${name} says so`, () => cluster.log(name).split('\n').some((line) => words.test(line) && line.includes(`claimed=${claimed}`)), 10000, tell);
  }
  assert.match(operate(parley, 'status').stdout, /^! router2 is down$/m);
  assert.match(cluster.metrics(), /^parley_link_refused_total\{node="store1",reason="version"\} [1-9]/m);
  await goesOn();
  await restart('router2', parley);
  await green();
});

test('an edge of another release takes nothing down', async () => {
  await restart('edge2', apart);
  await until('it says so', () => /event=hello_refused claimed=router1/.test(cluster.log('edge2')), 10000, tell);
  await goesOn();
  await restart('edge2', parley);
  await green();
});

test('an operator of another release is told why nobody answers', () => {
  const { status, stderr } = operate(apart, 'status');
  assert.equal(status, 1);
  assert.match(stderr, /^parley: nodes were heard that speak other versions of node links than parley apart: use the parley that they run/m);
  assert.equal(operate(parley, 'status').stderr, '');
});

test('a store stops at a log entry of a kind it does not know, says so, and goes on as the later version', async () => {
  const name = followers()[0];
  await restart(name, narrow);
  await green();
  await load.of('u0').request('profile', { name: 'A Name' });
  assert.equal((await cluster.gone(name)).code, 2, tell());
  assert.match(cluster.tail(name), /event=entry_unknown .*a later version wrote it.*downgrade is not possible: run that version, or restore a backup/);
  cluster.start(name);
  assert.equal((await cluster.gone(name)).code, 2, tell());
  assert.match(cluster.tail(name), /event=data_refused .*run that version again, or restore a backup/);
  await goesOn();
  await restart(name, parley);
  await green();
});

test('the next release works together with this one, and writes nothing new before all stores of the shard know it', async () => {
  const level = () => metric(cluster.metrics(), leader(), 'store_level');
  const now = level();
  const [one, other] = followers();
  for (const name of ['router1', one, other]) {
    await restart(name, later);
    await green();
  }
  assert.equal(operate(parley, 'transfer-leader', '0', one).status, 0);
  assert.equal(level(), now, 'one store is of the earlier release');
  await goesOn();
  await restart(followers().find((name) => name !== other), later);
  await green();
  await until('the level rises', () => level() === now + 1, 10000, tell);
  await restart(other, parley); // nothing new was written: the way back is open
  await green();
  await until('the level falls', () => level() === now, 10000, tell);
  await goesOn();
});

test('nobody noticed anything but pauses', async () => {
  await load.settle();
  await load.check();
  load.stop();
  await cluster.stop();
  await old.stop();
});
