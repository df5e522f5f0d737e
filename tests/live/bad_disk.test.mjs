// One replica of three gets a bad disk, in every way a disk goes bad: it puts its data aside, gets it back from the others by
// itself, and from outside nothing is missing and nothing is there twice.
import assert from 'node:assert/strict';
import { closeSync, cpSync, openSync, readFileSync, readdirSync, rmSync, statSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Cluster, sleep, until } from './lib/cluster.mjs';
import { Load } from './lib/load.mjs';

const REBUILT_MS = 60000;
// What was confirmed is told every STORE_GROUP_TELL_MS (250) and on all disks STORE_CONFIRMED_SAVE_MS (1,000) later. No metric says so.
const CONFIRMED_MS = 2 * (250 + 1000);
let cluster, load;

before(async () => {
  cluster = await Cluster.up({ edges: 1, routers: 1, replicas: 3 });
  load = await Load.start(cluster, { users: 4, seed: 11, pause: 20 });
});

after(async () => {
  load?.stop();
  await cluster?.stop({ quiet: true });
});

const dirOf = (name) => join(cluster.data, name);
const files = (name, suffix) => readdirSync(dirOf(name)).filter((file) => file.endsWith(suffix) && statSync(join(dirOf(name), file)).size > 0)
  .sort().map((file) => join(dirOf(name), file));
const kept = (name) => readdirSync(cluster.data).filter((file) => file.startsWith(`${name}.quarantine-`));
const leader = () => cluster.names('store').find((name) => cluster.leads(name));
const followers = () => cluster.names('store').filter((name) => name !== leader());

const applied = (name) => Number(new RegExp(`^parley_store_applied_index\\{node="${name}"[^}]*\\} (\\d+)`, 'm').exec(cluster.metrics())?.[1] ?? 0);

// n sends are acked, and this store has them all.
async function talk(n, name = leader()) {
  load.talk();
  await load.acked(n);
  await load.settle();
  const all = applied(leader());
  await until(`${name} has all`, () => applied(name) >= all, 30000, () => cluster.tails());
}

function flip(file, places) {
  const bytes = readFileSync(file);
  const fd = openSync(file, 'r+');
  for (const at of places(bytes.length)) {
    bytes[at] ^= 0x10;
    writeSync(fd, bytes, at, 1, at);
  }
  closeSync(fd);
}

// Kill it, spoil it, and start it while people talk; it must come back with everything.
async function spoiled(name, spoil, found) {
  const logged = cluster.log(name).length;
  const said = () => cluster.log(name).slice(logged);
  load.talk();
  await load.acked(30);
  await cluster.kill(name);
  await spoil(dirOf(name));
  cluster.start(name);
  await until('it puts its data aside', () => /level=error .*event=data_quarantined /.test(said()), REBUILT_MS, () => cluster.tails());
  await until('it has all again', () => / event=data_rebuilt /.test(said()), REBUILT_MS, () => cluster.tails());
  await load.settle();
  assert.match(said(), found);
  const line = said().split('\n').find((l) => l.includes('event=data_quarantined'));
  const [dir, ...more] = kept(name);
  assert.equal(more.length, 0);
  assert.ok(line.includes(dir), line);
  assert.ok(readdirSync(join(cluster.data, dir)).some((file) => file.startsWith('MANIFEST') || file.endsWith('.ldb')), 'what was there is kept');
  assert.ok(!readdirSync(cluster.data).includes(`${name}.lost`));
  rmSync(join(cluster.data, dir), { recursive: true });
  await load.check();
}

test('a flipped byte in its newest log file', async () => {
  const name = followers()[0];
  await talk(150, name);
  await spoiled(name, (dir) => {
    const file = files(dir.split('/').at(-1), '.log').at(-1);
    flip(file, (size) => [Math.floor(size / 2)]);
  }, /reason="[^"]*\.log: a record's checksum is wrong at offset \d+/);
});

test('flipped bytes in its newest table file', async () => {
  const name = followers()[0];
  await cluster.kill(name);
  cluster.start(name); // what the log files hold goes into a table file
  await talk(100, name);
  await spoiled(name, () => flip(files(name, '.ldb').at(-1), (size) => Array.from({ length: Math.ceil(size / 4096) }, (_, i) => Math.min(size - 1, i * 4096 + 700))),
    /event=data_quarantined .*reason="?[^=]*(does not read back|\.ldb|corrupt|checksum)/i);
});

test('a file that is gone', async () => {
  const name = followers()[1];
  await cluster.kill(name);
  cluster.start(name);
  await talk(100, name);
  await spoiled(name, () => rmSync(files(name, '.ldb').at(-1)), /event=data_quarantined .*missing/i);
});

test('a log cut short, which looks like the torn end that a crash leaves', async () => {
  const name = followers()[0];
  await talk(100, name);
  await spoiled(name, () => {
    const file = files(name, '.log').at(-1);
    truncateSync(file, Math.floor(statSync(file).size / 2));
  }, /event=data_is_stale |event=data_quarantined /);
});

test('an old copy of its directory', async () => {
  const name = followers()[1];
  const copy = join(cluster.data, 'copy');
  await cluster.kill(name);
  cpSync(dirOf(name), copy, { recursive: true });
  cluster.start(name);
  await talk(150, name);
  await spoiled(name, (dir) => {
    rmSync(dir, { recursive: true });
    cpSync(copy, dir, { recursive: true });
  }, /event=data_is_stale .*last_index=\d+/);
});

test('an old copy of its directory, when nobody who had its confirmations has run since', async () => {
  const name = followers()[0];
  const old = leader();
  const copy = join(cluster.data, 'older');
  await cluster.kill(name);
  cpSync(dirOf(name), copy, { recursive: true });
  cluster.start(name);
  await talk(150, name);
  await sleep(CONFIRMED_MS);
  await spoiled(name, async (dir) => {
    await cluster.kill(old);
    cluster.start(old);
    rmSync(dir, { recursive: true });
    cpSync(copy, dir, { recursive: true });
  }, /event=data_is_stale .*last_index=\d+/);
});

test('the disk of the leader', async () => {
  const name = leader();
  await talk(50);
  await spoiled(name, () => flip(files(name, '.log').at(-1), (size) => [Math.floor(size / 3)]), /checksum is wrong/);
  await talk(50);
  await load.check();
  const counts = cluster.metrics();
  assert.match(counts, new RegExp(`parley_store_quarantines_total\\{node="${name}"\\} 1`));
  load.stop();
  await cluster.stop();
});

test('three times is enough: it refuses and changes nothing', async () => {
  cluster = await Cluster.up({ edges: 1, routers: 1, replicas: 3 });
  const name = 'store3';
  await cluster.kill(name);
  for (const n of [1, 2, 3]) cpSync(dirOf(name), join(cluster.data, `${name}.quarantine-${n}`), { recursive: true });
  rmSync(join(dirOf(name), 'CURRENT'));
  const was = readdirSync(dirOf(name)).sort();
  cluster.start(name);
  const { code } = await cluster.gone(name);
  assert.equal(code, 2);
  assert.match(cluster.log(name), /event=quarantine_full .*max=3/);
  assert.deepEqual(readdirSync(dirOf(name)).sort(), was);
  await cluster.stop();
});
