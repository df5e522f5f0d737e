// A backup is made while the cluster serves, the cluster is lost, a new one is made of the backup: what was acked before is
// there, what came later is gone for everybody alike, and nothing of it is taken for what comes now.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Client } from './lib/client.mjs';
import { Cluster, parley, run, until } from './lib/cluster.mjs';
import { Load } from './lib/load.mjs';

const SIZE = { edges: 1, routers: 2, shards: 2, replicas: 3, env: { all: { STORE_FREE_MIN_MIB: 0 } } };
let old, load, dir, acked, cursors, fresh;
const clients = [];

before(async () => {
  old = await Cluster.up(SIZE);
  load = await Load.start(old, { users: 5, devices: [2], seed: 9, pause: 30 });
  dir = join(old.data, 'backup');
  load.talk();
  await load.acked(300);
});

after(async () => {
  load?.stop();
  for (const client of clients) client.stop();
  await fresh?.stop({ quiet: true });
  await old?.stop({ quiet: true });
});

function restore(cluster) {
  return spawnSync(parley, ['restore', dir, '--data', cluster.data], { encoding: 'utf8' });
}

test('a backup that was killed is none, and the same command makes it one', async () => {
  const child = run(parley, ['backup', '--data', old.data, '--to', dir], { stdio: 'ignore' });
  await until('it writes', () => existsSync(join(dir, 'shard-0.incoming')) || existsSync(join(dir, 'shard-0')));
  child.kill('SIGKILL');
  await child.ended;
  rmSync(join(dir, 'manifest'), { force: true }); // it came too late
  const checked = spawnSync(parley, ['backup', '--check', dir], { encoding: 'utf8' });
  assert.equal(checked.status, 1);
  assert.match(checked.stderr, /no backup/);
  await load.acked(50);
});

test('a backup while it serves, read back; a second one does not go over it', async () => {
  acked = load.recorder.rows();
  const child = run(parley, ['backup', '--data', old.data, '--to', dir], { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (part) => (text += part));
  const { code } = await child.ended;
  assert.equal(code, 0, text);
  assert.match(text, /^backup done: /m);
  const checked = spawnSync(parley, ['backup', '--check', dir], { encoding: 'utf8' });
  assert.equal(checked.status, 0, checked.stderr);
  assert.match(checked.stdout.trimEnd().split('\n').at(-1), /^backup good: /);
  const again = spawnSync(parley, ['backup', '--data', old.data, '--to', dir], { encoding: 'utf8' });
  assert.equal(again.status, 1);
  assert.match(again.stderr, /holds a backup already/);
  await load.acked(100);
  await load.settle();
  await load.check();
  assert.ok(acked.length > 50 && load.recorder.rows().length > acked.length + 50, `${acked.length} acks before, ${load.recorder.rows().length} in all`);
  cursors = new Map(load.clients.map((client) => [client, { ...client.cursor }]));
  load.stop();
});

test('a restore refuses a cluster that has data, or another hash key; then it makes a new one', async () => {
  await Promise.all(old.names().map((name) => old.kill(name)));
  const full = restore(old);
  assert.equal(full.status, 1);
  assert.match(full.stderr, /there is data/);
  fresh = await Cluster.make(SIZE);
  const other = restore(fresh);
  assert.equal(other.status, 1);
  assert.match(other.stderr, /hash_key/);
  assert.ok(!existsSync(join(fresh.data, 'store1')));
  const key = /^hash_key (.*)$/m.exec(readFileSync(join(dir, 'manifest'), 'utf8'))[1];
  const conf = join(fresh.data, 'cluster.conf');
  writeFileSync(conf, readFileSync(conf, 'utf8').replace(/hash_key = .*/, `hash_key = "${key}"`));
  const made = restore(fresh);
  assert.equal(made.status, 0, made.stderr);
  console.log(`# ${made.stdout.trimEnd().split('\n').join('; ')}`);
  for (const name of fresh.names()) fresh.start(name);
  await fresh.wait();
});

let restored; // chat -> its messages

test('all that was acked before the backup is there, in its place', async () => {
  const { checkHistory } = await import('./lib/recorder.mjs');
  const made = Object.fromEntries(Object.entries(load.members).filter(([chat]) => acked.some((row) => row.chat === chat) || chat === load.group));
  restored = await checkHistory(fresh, acked, Object.fromEntries(Object.entries(made).map(([chat, users]) => [chat, users[0]])));
  const kept = Object.values(restored).flat().length;
  console.log(`# ${acked.length} acked before the backup, ${load.recorder.rows().length} before the end, ${kept} entries restored`);
});

test('devices with later cursors are told to resync, and their lists are those of the chats', async () => {
  for (const [was, cursor] of cursors) {
    const client = new Client(fresh, was.user, { device: was.device, cursor });
    clients.push(client);
    await client.start();
    await until('a resync', () => client.seen.resyncs === 1, 10000, () => JSON.stringify(client.seen));
    assert.notEqual(client.cursor.era, cursor.era);
  }
  for (const client of clients) {
    await until(`the list of ${client.user}`, async () => {
      const { chats = [] } = await client.request('chats', { limit: 100 });
      return Object.entries(restored).every(([chat, messages]) => !load.members[chat].includes(client.user) ||
        chats.some((one) => one.chat === chat && one.last?.seq === messages.at(-1).seq));
    });
  }
});

test('seqs go on; a request from before is known, one that was lost is new', async () => {
  const lost = load.recorder.rows().find((row) => restored[row.chat] && !restored[row.chat].some((m) => m.sender === row.user && m.client_msg_id === row.client_msg_id));
  const heads = Object.fromEntries(Object.entries(restored).map(([chat, messages]) => [chat, messages.at(-1).seq]));
  const of = (user) => clients.find((client) => client.user === user);
  for (const chat of Object.keys(restored)) {
    for (const user of load.members[chat]) {
      const ack = await of(user).send({ chat }, `after ${user}`, `after-${user}`);
      assert.equal(ack.seq, ++heads[chat]);
      assert.ok(!ack.dup);
    }
  }
  assert.ok(lost, 'nothing was lost');
  const ack = await of(lost.user).send({ chat: lost.chat }, 'said again', lost.client_msg_id);
  assert.ok(!ack.dup);
  assert.equal(ack.seq, ++heads[lost.chat]);
  const bodies = (client, chat) => client.entries.filter((e) => e.chat === chat && (e.body?.startsWith('after ') || e.body === 'said again'));
  for (const client of clients) {
    for (const chat of Object.keys(restored).filter((one) => load.members[one].includes(client.user))) {
      const want = load.members[chat].length + (chat === lost.chat ? 1 : 0);
      await until(`${client.user}/${client.device} gets what is new in ${chat}`, () => bodies(client, chat).length >= want, 20000, () => fresh.tails());
      assert.deepEqual(bodies(client, chat).map((e) => e.seq), Array.from({ length: want }, (_, i) => heads[chat] - want + 1 + i));
    }
    assert.deepEqual([client.seen.holes, client.seen.repeats], [0, 0]);
  }
});

test('the other replicas joined by themselves, and a backup of the new cluster is good', async () => {
  await until('six stores vote', () => (fresh.metrics().match(/^parley_store_votes\{[^}]*\} 1$/gm) ?? []).length === 6, 30000, () => fresh.tails());
  const to = join(fresh.data, 'backup');
  execFileSync(parley, ['backup', '--data', fresh.data, '--to', to], { encoding: 'utf8' });
  execFileSync(parley, ['backup', '--check', to]);
  for (const client of clients) client.stop();
  await fresh.stop();
});
