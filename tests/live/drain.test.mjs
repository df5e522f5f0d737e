// SIGTERM: a node finishes what it has begun and leaves with 0, under load, and nothing acked is lost.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Client } from './lib/client.mjs';
import { Cluster, until } from './lib/cluster.mjs';
import { Load } from './lib/load.mjs';

const DRAIN_MS = 4000; // edge.drain_ms here; 20,000 by default
let cluster, load;

before(async () => {
  cluster = await Cluster.up({ env: { edge: { EDGE_DRAIN_MS: DRAIN_MS } } });
  load = await Load.start(cluster, { users: 6, devices: [2, 2, 2, 2, 2, 2], seed: 11, pause: 60 });
});

after(async () => {
  load?.stop();
  await cluster?.stop({ quiet: true });
});

const tell = () => load.describe();

test('an edge tells its clients to go, and goes', async () => {
  load.talk();
  await load.acked(50);
  const there = load.clients.filter((client) => client.node === 'edge1');
  assert.ok(there.length > 0, 'nobody is on edge1');
  const told = new Map(there.map((client) => [client, client.seen.reconnects]));
  const going = cluster.term('edge1');
  await until('it says so', () => /edge_draining/.test(cluster.log('edge1')), 5000, tell);
  for (let i = 0; i < 8; i++) { // no new sockets
    const guest = new Client(cluster, 'guest', { device: `g${i}` });
    await guest.start();
    assert.equal(guest.node, 'edge2');
    guest.stop();
  }
  const { code, ms } = await going;
  assert.equal(code, 0, tell());
  assert.ok(ms < DRAIN_MS + 10000, `${ms} ms`);
  console.log(`# ${there.length} clients drained from an edge in ${ms} ms`);
  for (const client of there) assert.ok(client.seen.reconnects > told.get(client), `${client.user}/${client.device} was not told\n${tell()}`);
  cluster.start('edge1');
  await load.settle();
  for (const client of there) assert.equal(client.node, 'edge2', tell());
  await load.check();
});

test('a client that does not go by itself is closed with 4200', async () => {
  const lazy = [];
  for (let i = 0; !lazy.some((client) => client.node === 'edge1'); i++) {
    assert.ok(i < 100, 'all of them came to edge2');
    const client = new Client(cluster, 'lazy', { device: `l${i}` });
    client.connectIn = () => {}; // neither by itself nor when it is closed
    await client.start();
    lazy.push(client);
  }
  const last = lazy.at(-1);
  const { code, ms } = await cluster.term('edge1');
  assert.equal(code, 0, tell());
  assert.ok(ms < DRAIN_MS + 10000, `${ms} ms`);
  assert.equal(last.seen.reconnects, 1);
  assert.deepEqual(last.seen.closes, [4200]);
  for (const client of lazy) client.stop();
  cluster.start('edge1');
});

test('a router hands its users over', async () => {
  load.talk();
  await load.acked(50);
  const { code, ms } = await cluster.term('router1');
  assert.equal(code, 0, tell());
  assert.ok(ms < 30000, `${ms} ms`);
  console.log(`# a router drained in ${ms} ms`);
  await load.acked(50); // without it
  cluster.start('router1');
  await load.settle();
  await load.check();
});

test('the store writes what it has begun', async () => {
  load.talk();
  await load.acked(50);
  const { code, ms } = await cluster.term('store1');
  assert.equal(code, 0, tell());
  assert.ok(ms < 30000, `${ms} ms`);
  console.log(`# the store drained in ${ms} ms`);
  await until('somebody waits for it', () => load.clients.some((client) => client.pending.size > 0), 5000, tell);
  cluster.start('store1');
  await load.acked(50);
  await load.settle();
  await load.check();
});

test('the cluster ends well', async () => {
  load.stop();
  await cluster.stop();
});
