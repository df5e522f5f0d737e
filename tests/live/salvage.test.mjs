// A store that does not trust its data says which file and where, touches nothing, and names the tool; the tool's copy works.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, closeSync, cpSync, openSync, readFileSync, readdirSync, renameSync, rmSync, statSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Cluster, parley } from './lib/cluster.mjs';
import { Load } from './lib/load.mjs';

let cluster, load, store, good;

// The store is killed with acked messages in its newest log; good is a copy of its files as they were then.
before(async () => {
  cluster = await Cluster.up();
  load = await Load.start(cluster, { users: 4, seed: 5, pause: 20 });
  load.talk();
  await load.acked(250);
  await load.settle();
  await cluster.kill('store1');
  store = join(cluster.data, 'store1');
  good = join(cluster.data, 'good');
  cpSync(store, good, { recursive: true });
});

after(async () => {
  load?.stop();
  await cluster?.stop({ quiet: true });
});

function restore() {
  rmSync(store, { recursive: true, force: true });
  cpSync(good, store, { recursive: true });
}

function hashes(dir) {
  return Object.fromEntries(readdirSync(dir).sort().map((name) =>
    [name, `${statSync(join(dir, name)).mtimeMs} ${createHash('sha256').update(readFileSync(join(dir, name))).digest('hex')}`]));
}

// A record for the place `at` of a log file: whole, but its checksum is wrong. (One that ends behind the file's end would be
// taken for the torn end that a crash leaves.)
function badRecord(at) {
  const room = 32768 - (at % 32768);
  const trailer = room < 7 ? room : 0;
  const record = Buffer.alloc(7 + Math.min(100, trailer > 0 ? 100 : room - 7), 0x5a);
  record.writeUInt16LE(record.length - 7, 4);
  record[6] = 1;
  return Buffer.concat([Buffer.alloc(trailer), record]);
}

const newestLog = (dir) => join(dir, readdirSync(dir).filter((name) => name.endsWith('.log') && statSync(join(dir, name)).size > 0).sort().at(-1));

// Start the store on what is there; it must refuse. Gives its log line.
async function refused() {
  const before = hashes(store);
  const logged = cluster.log('store1').length;
  cluster.start('store1');
  const { code } = await cluster.gone('store1');
  assert.deepEqual(hashes(store), before, 'it touched what it refused');
  const text = cluster.log('store1').slice(logged);
  assert.notEqual(code, 0, text);
  const line = text.split('\n').find((l) => l.includes('event=data_refused'));
  assert.ok(line, text);
  assert.match(line, /parley store salvage/);
  return line;
}

function salvage(to) {
  const acks = load.recorder.plain(join(cluster.data, 'acks.plain'));
  const { status, stdout, stderr } = spawnSync(parley, ['store', 'salvage', store, to, '--acks', acks], { encoding: 'utf8' });
  return { status, stdout, stderr, last: stdout.trimEnd().split('\n').at(-1) };
}

async function runsOn(copy) {
  rmSync(store, { recursive: true });
  renameSync(copy, store);
  cluster.start('store1');
  await cluster.wait();
}

test('garbage behind the last record: refused by name and offset, untouched; the salvaged copy has every ack', async () => {
  restore();
  const log = newestLog(store);
  const size = statSync(log).size;
  appendFileSync(log, badRecord(size));
  const line = await refused();
  assert.ok(line.includes(log.split('/').at(-1)), line);
  const offset = Number(/offset[ =](\d+)/.exec(line)?.[1]);
  assert.ok(offset >= size && offset <= size + 6, `bad from ${size}, said ${line}`);
  const copy = join(cluster.data, 'copy1');
  const before = hashes(store);
  const { status, stdout, stderr, last } = salvage(copy);
  console.log(`# ${last}`);
  assert.deepEqual(hashes(store), before, 'salvage touched its source');
  assert.match(last, /^salvaged: [1-9]\d* rows, 0 missing$/, stdout + stderr);
  assert.equal(status, 0);
  await runsOn(copy);
  await load.check();
  await cluster.kill('store1');
});

test('the last record torn away: what it held is reported, everything before it is there', async () => {
  restore();
  const log = newestLog(store);
  const rows = load.recorder.rows();
  truncateSync(log, statSync(log).size - 3);
  const copy = join(cluster.data, 'copy2');
  const { stdout, stderr, last } = salvage(copy);
  console.log(`# ${last}`);
  assert.match(last, /^salvaged: [1-9]\d* rows, \d+ missing$/, stdout + stderr);
  const missing = [...stdout.matchAll(/^missing chat=(\S+) seq=(\d+)/gm)].map((m) => `${m[1]} ${m[2]}`);
  assert.ok(missing.length <= 4, `one record held ${missing.length} acks\n${stdout}`);
  const newest = new Map();
  for (const { chat, seq } of rows) newest.set(chat, Math.max(newest.get(chat) ?? 0, seq));
  for (const { chat, seq } of rows) {
    if (missing.includes(`${chat} ${seq}`) || missing.includes(`default/${chat} ${seq}`)) assert.ok(seq > newest.get(chat) - 4, `an old one is gone: ${chat} ${seq}`);
  }
  await runsOn(copy);
  await cluster.kill('store1');
});

test('a bad record with good ones behind it is no torn end: refused, and not salvaged as if it were one', async () => {
  restore();
  const log = newestLog(store);
  const bytes = readFileSync(log);
  const at = Math.floor(bytes.length / 2);
  bytes[at] ^= 0xff;
  const fd = openSync(log, 'r+');
  writeSync(fd, bytes, at, 1, at);
  closeSync(fd);
  const line = await refused();
  assert.ok(line.includes(log.split('/').at(-1)), line);
  const copy = join(cluster.data, 'copy3');
  const { status, stdout, stderr } = salvage(copy);
  assert.notEqual(status, 0, stdout);
  assert.match(stdout + stderr, new RegExp(`${log.split('/').at(-1)}.*offset`), stdout + stderr);
});

test('the same files unharmed: everything acked is there, and the cluster ends well', async () => {
  restore();
  cluster.start('store1');
  await cluster.wait();
  await load.check();
  load.stop();
  await cluster.stop();
});
