// From the previous version to this one, node by node, while people talk: 2 shards of 3 stores, 3 routers, 2 edges; and back, or it
// is shown that there is no way back, when this version has raised the level of the log (proto/README.md, "Versions"). Every
// mix that a roll passes through is held for a while, with leaders killed, slots moved and replicas rebuilt in it. Afterwards
// histories and inboxes are held against a recorder outside, and the replicas of a shard against each other, row by row.
//   make -s MODE=asan && PARLEY=build/asan/parley node --test tests/live/long/upgrade.test.mjs
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Client } from '../lib/client.mjs';
import { Cluster, now, parley, run, sleep, until } from '../lib/cluster.mjs';
import { Load } from '../lib/load.mjs';
import { numbers, previousCommit, version } from '../lib/versions.mjs';

const { binary: previous, skip } = version('previous');
const higher = !skip && numbers().level > numbers(previousCommit()).level;
const apart = version('apart').binary;
const talks = ['2004-12-25.train-c.txt', '2017-07-15.train-c.txt'].map((name) => `tests/data/ubuntu-irc/${name}`);
const SPEED = 12; // lines a second: a talk lasts as long as half of the way
const HOLD_MS = 3000;
const begin = now();
let cluster, load, replay, over, broken, copies = 0;

const say = (text) => console.log(`# ${((now() - begin) / 1000).toFixed(1).padStart(6)} ${text}`);
const tell = () => load?.describe() ?? cluster.tails();

// ---- the cluster as its operator has it ----

// Like systemd with Restart=always: whatever ends comes back as the binary that is installed then. What refuses (2) stays away.
function supervise(name) {
  const { child, ended } = cluster.nodes[name];
  child.expected = true;
  ended.then(({ code, signal }) => {
    if (over || cluster.nodes[name].held) return;
    if (code !== 0 && signal !== 'SIGKILL') cluster.exits.push({ name, code, signal });
    if (code === 2) return;
    cluster.start(name);
    supervise(name);
  });
}

function command(binary, ...words) {
  return new Promise((done) => {
    execFile(binary, [...words, '--data', cluster.data], { encoding: 'utf8' }, (error, out, err) => done({ code: error?.code ?? 0, out, err }));
  });
}

async function done(binary, ...words) {
  const { code, out, err } = await command(binary, ...words);
  assert.equal(code, 0, `${words.join(' ')}: ${out}${err}${tell()}`);
  say(`${words.slice(1).join(' ')}: ${out.trimEnd().split('\n').at(-1)}`);
}

const status = async (binary = parley) => JSON.parse((await command(binary, 'cluster', 'status', '--json')).out);
const green = (what) => until(`green: ${what}`, async () => (await status()).green, 60000, tell);
const leader = async (shard) => until(`shard ${shard} has a leader`, async () => (await status()).shards[shard].leader, 20000, tell);
const stores = (shard) => cluster.names('store').filter((name) => cluster.nodes[name].shard === shard);
const others = async (shard) => {
  const first = await leader(shard);
  return stores(shard).filter((name) => name !== first);
};
const words = (binary) => new Promise((found) => execFile(binary, ['version'], { encoding: 'utf8' }, (_, out) => found(out.trim().split(' ')[1])));

function install(binary, names = cluster.names()) {
  for (const name of names) cluster.binaries[name] = binary;
}

// What a roll does with one node.
async function swap(name, binary) {
  install(binary, [name]);
  await done(parley, 'cluster', 'drain', name);
  await green(`${name} is back`);
}

async function kill(name) {
  await cluster.kill(name);
  say(`${name} was killed`);
}

// An empty disk: everything comes from the others.
async function rebuild(name) {
  const node = cluster.nodes[name];
  node.held = true;
  if (node.child) await cluster.kill(name);
  rmSync(join(cluster.data, name), { recursive: true });
  node.held = false;
  cluster.start(name);
  supervise(name);
  await until(`${name} votes again`, () => new RegExp(`^parley_store_votes\\{node="${name}"\\} 1`, 'm').test(cluster.metrics()), 30000, tell);
  await green(`${name} is rebuilt`);
  say(`${name} has got its rows from the others`);
}

// ---- what must hold in every mix ----

// Both operators see every node, with its version; acks go on.
async function mixed(what, installed) {
  await green(what);
  const { acks } = load.recorder;
  for (const binary of [parley, previous]) {
    const { nodes } = await until(`${what}: green for both operators`, async () => {
      const seen = await status(binary);
      return seen.green && seen;
    }, 60000, tell);
    for (const { name, version: found } of nodes) {
      assert.equal(found, await words(installed(name)), `${name} runs another version than was installed`);
    }
  }
  await sleep(HOLD_MS);
  await until('acks go on', () => load.recorder.acks > acks + 50, 20000, tell);
  assert.equal(load.failed, undefined, tell());
  say(`${what}: ${load.recorder.acks - acks} acks`);
}

const asInstalled = (name) => cluster.binaries[name] ?? cluster.binary;

// Index and digest of the rows of every replica of a shard, from a copy of each.
async function rows(shard) {
  const found = {};
  for (const name of stores(shard)) {
    const dir = join(cluster.data, `copy${copies++}`);
    const { code, err } = await command(parley, 'backup', '--to', dir, '--from', name);
    assert.equal(code, 0, err + tell());
    found[name] = /^shard \d+ index (\d+) era \w+ (rows .*)$/m.exec(readFileSync(join(dir, 'manifest'), 'utf8')).slice(1).join(' ');
    rmSync(dir, { recursive: true });
  }
  return found;
}

// While nobody talks the replicas of a shard stand at one index, and then they hold the same rows, whoever wrote them.
async function same(what) {
  for (const shard of [0, 1]) {
    const texts = await until('the replicas are at one index', async () => {
      const found = Object.values(await rows(shard));
      return new Set(found.map((text) => text.split(' ')[0])).size === 1 && found;
    }, 30000, tell);
    assert.equal(new Set(texts).size, 1, `${what}: shard ${shard}'s replicas differ:\n${texts.join('\n')}`);
  }
  say(`${what}: the replicas of each shard hold the same rows`);
}

function play(file) {
  const child = run(parley, ['replay', file, '--speed', SPEED, '--port', cluster.port, '--data', cluster.data, '--patience', '60'], { stdio: ['ignore', 'pipe', 'pipe'] });
  replay = { child, text: '' };
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (part) => (replay.text += part));
}

// The talk is over, all that was sent is where it belongs.
async function proven(what) {
  await replay.child.ended;
  const last = replay.text.trimEnd().split('\n').find((line) => line.startsWith('replayed'));
  assert.match(last ?? '', /^replayed \d+ lines, [1-9]\d* deliveries, 0 missing, 0 doubled, 0 reordered$/, `${replay.text}${tell()}`);
  await load.settle(120000);
  const messages = await load.check();
  say(`${what}: ${last}; ${messages} messages of others, ${load.recorder.acks} acked, each there once and in order`);
}

// ---- the way ----

// Each begins where the one before ended.
function step(name, go) {
  test(name, { skip }, async (t) => {
    if (broken) return t.skip('a step before it failed');
    broken = true;
    await go();
    broken = false;
  });
}

before(async () => {
  if (skip) return;
  cluster = await Cluster.up({ shards: 2, replicas: 3, routers: 3, edges: 2, binary: previous, env: { all: { STORE_FREE_MIN_MIB: 0 }, edge: { EDGE_DRAIN_MS: 2000 } } });
  for (const name of cluster.names()) supervise(name);
  load = await Load.start(cluster, { users: 6, devices: [2, 2], seed: 17, pause: 100, patient: true });
  load.talk();
  play(talks[0]);
});

after(async () => {
  over = true;
  load?.stop();
  await cluster?.stop({ quiet: true });
});

step('all is the previous version', () => mixed('all previous', () => previous));

step('a roll to a release that does not speak with this one stops at its first node', async () => {
  install(apart);
  const { code, err } = await command(previous, 'cluster', 'roll', '--wait', '6');
  assert.equal(code, 1);
  assert.match(err, /router1 is down/);
  assert.match(err, /roll: stopped: 6 s after router1 was restarted the cluster is not whole/);
  install(previous);
  await cluster.kill('router1');
  await mixed('it was put back', () => previous);
});

step('one router is of this version', async () => {
  await swap('router1', parley);
  await mixed('router1 new, all else old', asInstalled);
});

step('a shard whose leader is old and whose followers are new', async () => {
  const old = await leader(0);
  for (const name of await others(0)) await swap(name, parley);
  assert.equal(await leader(0), old);
  await mixed('shard 0: leader old, followers new', asInstalled);
  await rebuild((await others(0))[0]);
  assert.equal(await leader(0), old);
  await kill(old);
  await green('another leads');
  assert.notEqual(await leader(0), old);
  await mixed('shard 0: leader new, one follower old', asInstalled);
  await rebuild(old);
});

step('a shard whose leader is new and whose followers are old', async () => {
  const [first] = await others(1);
  await swap(first, parley);
  await done(parley, 'cluster', 'transfer-leader', '1', first);
  await mixed('shard 1: leader new, followers old', asInstalled);
});

step('slots move between shards of both, and leaders are killed meanwhile', async () => {
  await done(parley, 'cluster', 'move-slots', '--to', '1', '--count', '24');
  await done(previous, 'cluster', 'move-slots', '--to', '0', '--slots', '2048-2071');
  const moving = done(parley, 'cluster', 'move-slots', '--to', '1', '--count', '60');
  const first = await leader(1);
  await kill(first);
  await moving;
  await green('all is well');
  assert.notEqual(await leader(1), first);
  await mixed('shard 1: leader old again', asInstalled);
});

step('one edge is of this version', async () => {
  await swap('edge1', parley);
  await mixed('edge1 new, edge2 old, routers and stores of both', asInstalled);
});

step('replicas of both versions hold the same rows', async () => {
  await proven('mixed');
  await same('mixed');
  load.talk();
  play(talks[1]);
  await mixed('another talk', asInstalled); // a roll begins on a green cluster only, and so many people coming at once is much for a busy machine
});

step('`parley cluster roll` brings all to this version', async () => {
  install(parley);
  await done(parley, 'cluster', 'roll');
  await mixed('all new', () => parley);
  await kill(await leader(0));
  await mixed('all new, after a kill', () => parley);
});

// While no level was raised nothing is written that the previous version does not know.
async function wayBack() {
  install(previous);
  await done(previous, 'cluster', 'roll');
  await mixed('all previous again', () => previous);
  await kill(await leader(1));
}

// A raised level: a store has entries to apply that the previous version does not know. What makes one, today: an attach.
async function noWayBack() {
  const [name] = await others(0);
  const node = cluster.nodes[name];
  node.held = true;
  cluster.signal(name, 'SIGSTOP'); // for less time than makes it silent
  const guests = Array.from({ length: 12 }, (_, i) => new Client(cluster, `guest${i}`));
  await Promise.all(guests.map((guest) => guest.start()));
  await cluster.kill(name);
  for (const guest of guests) guest.stop();
  install(previous, [name]);
  cluster.start(name);
  assert.equal((await cluster.gone(name, 30000)).code, 2, tell());
  assert.match(cluster.tail(name), /event=(entry_unknown|data_refused) .*downgrade is not possible.*run that version/, tell());
  say(`${name} does not start as the previous version, and says why`);
  install(parley, [name]);
  await rebuild(name); // up to that entry it applied what it knew, and dropped fields of rows that it does not know
  await mixed('it is as it was', () => parley);
}

step(higher ? 'the way back is refused: the level was raised' : 'the way back: the same, to the previous version', async () => {
  await (higher ? noWayBack() : wayBack());
  await proven('after the way back');
  await same('after the way back');
  load.talk();
});

step('and stopped and started as this version', async () => {
  for (const role of ['edge', 'router', 'store']) {
    await Promise.all(cluster.names(role).map(async (name) => {
      cluster.nodes[name].held = true;
      assert.equal((await cluster.term(name)).code, 0, tell());
    }));
  }
  install(parley);
  for (const name of cluster.names()) {
    cluster.nodes[name].held = false;
    cluster.start(name);
    supervise(name);
  }
  await mixed('all new', () => parley);
  await load.settle(120000);
  await load.check();
  await same('at the end');
  over = true;
  load.stop();
  await cluster.stop();
});
