// kill -9 of any node, under load, again and again: nothing acked is missing, nothing is there twice, nothing is out of order,
// and the clients carry on by themselves. SEED repeats the choice of nodes (not the timing), SURVIVES_SECONDS is how long.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Cluster, now, sleep } from './lib/cluster.mjs';
import { Load, random } from './lib/load.mjs';

const seed = Number(process.env.SEED ?? Date.now() % 1000000);
const seconds = Number(process.env.SURVIVES_SECONDS ?? 20);
const PAUSE_MAX_MS = 30000; // nothing takes longer, on a busy machine with sanitizers
let cluster, load;

after(async () => {
  load?.stop();
  await cluster?.stop({ quiet: true });
});

function report(kills) {
  const rows = ['edge', 'router', 'store'].map((role) => {
    const of = kills.filter((k) => k.role === role);
    const worst = (what) => Math.max(0, ...of.map((k) => load.longest(what, k.at, k.until)));
    return { role, kills: of.length, acked: worst('acked'), delivered: worst('delivered') };
  });
  for (const r of rows) console.log(`# ${r.role}: ${r.kills} kills; the slowest message around them was acked after ${r.acked} ms, delivered after ${r.delivered} ms`);
  return Math.max(...rows.map((r) => Math.max(r.acked, r.delivered)));
}

test(`nothing is lost, doubled or reordered by kill -9 of any node for ${seconds} s (SEED=${seed})`, async () => {
  const choose = random(seed);
  cluster = await Cluster.up();
  load = await Load.start(cluster, { users: 6, devices: [2, 2], seed });
  const names = cluster.names();
  const kills = [];
  load.talk();
  for (const end = now() + seconds * 1000; now() < end;) {
    await sleep(600 + choose() * 1200);
    const name = kills.length < names.length ? names[(kills.length + seed) % names.length] : names[Math.floor(choose() * names.length)];
    const kill = { name, role: cluster.nodes[name].role, at: now() };
    await cluster.kill(name);
    await sleep(choose() < 0.3 ? 0 : choose() * 1000);
    cluster.start(name);
    kill.until = now() + 500;
    kills.push(kill);
  }
  await load.settle();
  console.log(`# SEED=${seed}: ${kills.length} kills: ${kills.map((k) => k.name).join(' ')}`);
  const messages = await load.check();
  console.log(`# ${load.recorder.acks} acks, ${messages} messages, ${load.clients.reduce((n, c) => n + c.seen.connects, 0)} connections of ${load.clients.length} devices`);
  assert.ok(load.recorder.acks > seconds * 20, `only ${load.recorder.acks} acks in ${seconds} s`);
  const slowest = report(kills);
  assert.ok(slowest < PAUSE_MAX_MS, `${slowest} ms`);
  load.stop();
  await cluster.stop();
});
