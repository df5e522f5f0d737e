// chaos.mjs: a replicated cluster on hosts of its own (lib/hosts.mjs), people who talk all the time, faults without end
// (lib/faults.mjs), and outside of it all a recorder: every ack and every entry a device got, on files as they come.
// Afterwards everything is healed, and what is in the cluster is held against the files.
//   CHAOS_SECONDS=600 CHAOS_SEED=… node tests/live/chaos.mjs     (make chaos)
// The last line is the result; the exit status is 0 only when nothing is wrong. CHAOS_SHARDS, CHAOS_REPLICAS, CHAOS_ROUTERS,
// CHAOS_EDGES: how many; CHAOS_KINDS=kill,cut: only these kinds of faults; CHAOS_AT_ONCE=1: one
// after the other; CHAOS_KEEP=1 keeps the data of a run that went wrong.
import { createHash } from 'node:crypto';
import { closeSync, cpSync, mkdtempSync, openSync, readFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Client } from './lib/client.mjs';
import { now, sleep, until } from './lib/cluster.mjs';
import { Faults, canTrace } from './lib/faults.mjs';
import { Hosts, whyNoHosts } from './lib/hosts.mjs';
import { Load, random } from './lib/load.mjs';
import { Recorder, compareChat, compareDevice } from './lib/recorder.mjs';

const CALM_MS = 2500; // before a failover is measured
const HEAL_MS = 90000; // everything is up: until every send is answered and every device has everything
const AGREE_MS = 30000;
const ROUNDS = 8; // elections until every replica has led

const hash = (body) => (body === undefined ? '-' : createHash('sha256').update(body).digest('hex').slice(0, 16)); // entries of membership have none
const lines = (file) => readFileSync(file, 'utf8').split('\n').filter(Boolean);

// Two files: acks with the body's hash, and what each device got.
class Witness extends Recorder {
  constructor(dir) {
    super(dir);
    this.file = join(dir, 'witness.acks');
    closeSync(this.fd);
    this.fd = openSync(this.file, 'a');
    this.gotFile = join(dir, 'witness.entries');
    this.got = openSync(this.gotFile, 'a');
    this.pause = { ms: 0, at: 0 };
    this.begin = now();
  }

  acked(event, user, request) {
    if (this.fd === null) return;
    const body = hash(JSON.parse(request).body);
    writeSync(this.fd, `${[event.chat, event.seq, event.message_id, event.client_msg_id, user, body].join(' ')}\n`);
    const since = this.lastAck || this.begin;
    if (now() - since > this.pause.ms) this.pause = { ms: now() - since, at: since - this.begin };
    this.acks++;
    this.lastAck = now();
  }

  delivered(event, client) {
    if (this.got === null) return;
    writeSync(this.got, `${[client.user, client.device, event.inbox_seq, event.chat, event.seq, event.message_id, hash(event.body)].join(' ')}\n`);
  }

  // user/device -> its entries, as the file has them.
  devices() {
    const all = new Map();
    for (const line of lines(this.gotFile)) {
      const [user, device, inbox_seq, chat, seq, message_id, body] = line.split(' ');
      const who = `${user}/${device}`;
      if (!all.has(who)) all.set(who, []);
      all.get(who).push({ inbox_seq: Number(inbox_seq), chat, seq: Number(seq), message_id, body });
    }
    return all;
  }

  rows() {
    return lines(this.file).map((line) => {
      const [chat, seq, message_id, client_msg_id, user, body] = line.split(' ');
      return { chat, seq: Number(seq), message_id, client_msg_id, user, body };
    });
  }

  close() {
    super.close();
    if (this.got !== null) closeSync(this.got);
    this.got = null;
  }
}

// Every chat's history, read by devices that were never there before: chat -> { messages (bodies hashed), last }.
async function histories(cluster, members) {
  const readers = new Map();
  const chats = {};
  for (const [chat, [user]] of Object.entries(members)) {
    if (!readers.has(user)) {
      const reader = new Client(cluster, user, { device: 'fresh' });
      readers.set(user, reader);
      await reader.start();
    }
    const { messages, last } = await readers.get(user).history(chat);
    chats[chat] = { last, messages: messages.map((m) => ({ ...m, body: hash(m.body) })) };
  }
  for (const reader of readers.values()) reader.stop();
  return chats;
}

// Holds the files against the histories. Gives { missing, doubled, reordered, bad: complaints in words }.
export function judge({ rows, devices, clients, members, chats }) {
  const found = { missing: 0, doubled: 0, reordered: 0, bad: [] };
  const perChat = new Map(Object.keys(chats).map((chat) => [chat, []]));
  for (const row of rows) {
    if (perChat.has(row.chat)) perChat.get(row.chat).push(row);
    else found.bad.push(`an ack of ${row.chat}, which nobody made`);
  }
  for (const [chat, { messages, last }] of Object.entries(chats)) {
    found.bad.push(...compareChat(chat, messages, last, perChat.get(chat)));
    const at = new Map();
    for (const m of messages) {
      const key = m.client_msg_id && `${m.sender} ${m.client_msg_id}`;
      if (key && at.has(key)) found.doubled++;
      if (key) at.set(key, m);
    }
    for (const row of perChat.get(chat)) {
      const m = at.get(`${row.user} ${row.client_msg_id}`);
      if (!m) found.missing++;
      else if (m.seq !== row.seq) found.reordered++;
      else if (m.body !== row.body) found.bad.push(`${chat}: seq ${row.seq} has another body than was acked`);
    }
  }
  for (const client of clients) {
    const entries = devices.get(`${client.user}/${client.device}`) ?? [];
    const theirs = Object.fromEntries(Object.entries(chats).filter(([chat]) => members[chat].includes(client.user)).map(([chat, { messages }]) => [chat, messages]));
    found.bad.push(...compareDevice({ user: client.user, device: client.device, seen: client.seen, entries }, theirs));
    const seen = new Map(); // chat -> { seqs, top }
    for (const { chat, seq } of entries) {
      if (!seen.has(chat)) seen.set(chat, { seqs: new Set(), top: 0 });
      const s = seen.get(chat);
      if (s.seqs.has(seq)) found.doubled++;
      else if (seq < s.top) found.reordered++;
      s.seqs.add(seq);
      s.top = Math.max(s.top, seq);
    }
    for (const [chat, messages] of Object.entries(theirs)) {
      found.missing += messages.filter((m) => !seen.get(chat)?.seqs.has(m.seq)).length;
    }
  }
  return found;
}

// Samples of a metric: node -> number.
function metric(text, name) {
  const all = {};
  for (const [, node, value] of text.matchAll(new RegExp(`^${name}\\{node="([^"]*)"[^}]*\\} (\\d+)`, 'gm'))) all[node] = Number(value);
  return all;
}

// What the replicas say of themselves when all is quiet: a list of complaints.
function disagreements(cluster) {
  const text = cluster.metrics();
  const [applied, leader, owed] = ['applied_index', 'leader', 'outbox_items'].map((name) => metric(text, `parley_store_${name}`));
  const bad = [];
  const shards = new Map();
  for (const name of cluster.names('store')) {
    const { shard } = cluster.nodes[name];
    shards.set(shard, [...(shards.get(shard) ?? []), name]);
  }
  for (const [shard, names] of shards) {
    const told = names.map((name) => `${name} ${applied[name]}${leader[name] ? ' leads' : ''} owes ${owed[name]}`).join(', ');
    const same = names.every((name) => applied[name] !== undefined && applied[name] === applied[names[0]]);
    if (!same || names.filter((name) => leader[name] === 1).length !== 1 || names.some((name) => leader[name] && owed[name] > 0)) {
      bad.push(`shard ${shard}: ${told}`);
    }
  }
  return bad;
}

// The histories came from whoever led. Kills leaders until every replica has led, and reads them again from each: replicas
// that agree on an index but not on their rows would be found. Gives complaints.
async function askEveryReplica(cluster, members, chats, tell) {
  const bad = [];
  const shards = new Set(cluster.names('store').map((name) => cluster.nodes[name].shard));
  for (const shard of shards) {
    const replicas = cluster.names('store').filter((name) => cluster.nodes[name].shard === shard);
    const leader = () => replicas.find((name) => cluster.nodes[name].child && cluster.leads(name));
    const asked = new Set([leader()]);
    for (let round = 0; round < ROUNDS && asked.size < replicas.length; round++) {
      const old = leader();
      await cluster.kill(old);
      const name = await until(`another than ${old} leads`, leader, AGREE_MS);
      const again = await histories(cluster, members);
      asked.add(name);
      if (JSON.stringify(again) !== JSON.stringify(chats)) bad.push(`${name} tells another history than the leader before it`);
      cluster.start(old);
      await until('the replicas agree', () => disagreements(cluster).length === 0, AGREE_MS, () => disagreements(cluster).join('\n'));
    }
    tell(`shard ${shard}: ${[...asked].join(', ')} were asked for every history`);
  }
  return bad;
}

// kill -9 with nothing else going on. Gives the ms until the last send that was under way then, or began within 200 ms, was acked.
async function failover(cluster, load, name) {
  await sleep(CALM_MS);
  const at = now();
  await cluster.kill(name);
  await sleep(6000);
  cluster.start(name);
  return () => Math.round(Math.max(0, ...load.slow.filter((s) => s.what === 'acked' && s.from < at + 200 && s.from + s.took > at).map((s) => s.from + s.took - at)));
}

// A line per kind of fault. Faults overlap: what is slow around one need not be its doing.
function byKind(done, load) {
  return [...new Set(done.map(({ kind }) => kind))].sort().map((kind) => {
    const of = done.filter((fault) => fault.kind === kind);
    const worst = (what) => Math.max(...of.map(({ at, until: end }) => load.longest(what, at, end)));
    return `${kind}: ${of.length}; around them the slowest send was acked after ${worst('acked')} ms, delivered after ${worst('delivered')} ms`;
  });
}

// Everything is healed: waits until all is quiet, then holds the files against the histories. Gives what judge gives, and the figures of the last line.
async function prove(cluster, load, witness, tell) {
  const { answered, complete } = await load.settle(HEAL_MS);
  tell(`after the last fault every send was answered in ${answered} ms, every device had everything in ${complete} ms`);
  await until('the replicas agree', () => disagreements(cluster).length === 0, AGREE_MS, () => disagreements(cluster).join('\n'));
  const chats = await histories(cluster, load.members);
  const rows = witness.rows();
  const devices = witness.devices();
  const found = judge({ rows, devices, clients: load.clients, members: load.members, chats });
  return { ...found, chats, acked: rows.length, delivered: [...devices.values()].reduce((n, list) => n + list.length, 0) };
}

function counted(list) {
  const counts = {};
  for (const each of list) counts[each] = (counts[each] ?? 0) + 1;
  return Object.entries(counts).map(([what, n]) => `${what} ${n}`).join(', ') || 'nothing';
}

// How it went, as far as nothing has to be proved.
function report({ load, witness, faults, figures, each }, tell) {
  if (each) for (const { text, at, until: end } of faults.done) tell(`${text}: the slowest send was acked after ${load.longest('acked', at, end)} ms, delivered after ${load.longest('delivered', at, end)} ms`);
  for (const line of byKind(faults.done, load)) tell(line);
  for (const { name, took } of figures) tell(`kill -9 of ${name}, alone: the last send under way then was acked after ${took()} ms`);
  tell(`the longest time without any ack was ${Math.round(witness.pause.ms)} ms, ${Math.round(witness.pause.at / 1000)} s after talking began`);
  const slow = load.clients.map((c) => ({ who: `${c.user}/${c.device}`, ...c.slowest })).sort((a, b) => b.took - a.took)[0];
  tell(`the slowest answer took ${Math.round(slow.took)} ms, at ${slow.who}: ${slow.story.join(', ')}`);
  tell(`${load.clients.reduce((n, c) => n + c.seen.connects, 0)} connections of ${load.clients.length} devices; told: ${counted(load.clients.flatMap((c) => c.seen.errors))}; lost: ${counted(load.clients.flatMap((c) => c.seen.closes))}`);
}

// Kills, one after the other, the leader of each shard in turn and every third time a router. Gives { name, took }.
async function failovers(cluster, load, n) {
  const all = [];
  const shards = new Set(cluster.names('store').map((name) => cluster.nodes[name].shard)).size;
  const routers = cluster.names('router');
  for (let i = 0; i < n; i++) {
    const leader = cluster.names('store').find((name) => cluster.leads(name) && cluster.nodes[name].shard === (i % 3) % shards);
    const name = i % 3 === 2 ? routers[Math.floor(i / 3) % routers.length] : leader;
    if (name) all.push({ name, took: await failover(cluster, load, name) });
  }
  return all;
}

// One run. Gives { bad: what is wrong, in words; summary }.
export async function chaos({ seconds, seed, shards = 2, replicas = 3, routers = 3, edges = 2, users = 6, pause = 60, kills = 3, everyReplica = true, only, atOnce, traces = canTrace(), say = console.log }) {
  const begin = now();
  const tell = (line) => say(`# ${((now() - begin) / 1000).toFixed(1).padStart(6)} ${line}`);
  tell(`seed ${seed}: ${shards} x ${replicas} stores, ${routers} routers, ${edges} edges, ${users} people, faults for ${seconds} s${traces ? '' : ', none of disks: this machine does not let processes be traced'}`);
  const options = `${process.env.ASAN_OPTIONS ? `${process.env.ASAN_OPTIONS}:` : ''}detect_leaks=0`; // leaks cannot be looked for under strace
  const cluster = await Hosts.up({ shards, replicas, routers, edges, env: { store: { ASAN_OPTIONS: options } } });
  const bad = [];
  let load;
  try {
    const witness = new Witness(cluster.data);
    load = await Load.start(cluster, { users, devices: [2, 2], seed, pause, patient: true, recorder: witness });
    load.talk();
    const figures = await failovers(cluster, load, kills);
    const faults = new Faults(cluster, { random: random(seed), traces, only, atOnce, clients: load.clients, say: tell });
    await faults.run(seconds * 1000);
    bad.push(...faults.bad);
    tell('healed');
    const found = await prove(cluster, load, witness, tell);
    bad.push(...found.bad);
    report({ load, witness, faults, figures, each: atOnce === 1 }, tell);
    if (found.acked < seconds * 5) bad.push(`only ${found.acked} acks in ${seconds} s`);
    load.stop();
    if (everyReplica && replicas > 1) bad.push(...await askEveryReplica(cluster, load.members, found.chats, tell));
    await cluster.stop({ keep: true }).catch((error) => bad.push(error.message));
    const { acked, delivered, missing, doubled, reordered } = found;
    return { bad, summary: `chaos: ${acked} acked, ${delivered} delivered, ${faults.done.length} faults, ${missing} missing, ${doubled} doubled, ${reordered} reordered` };
  } catch (error) {
    bad.push(error.stack);
    return { bad, summary: `chaos: seed ${seed} did not come to its end` };
  } finally {
    load?.stop();
    if (bad.length > 0 && process.env.CHAOS_KEEP) {
      const kept = mkdtempSync(join(tmpdir(), 'chaos-kept-'));
      cpSync(cluster.data, kept, { recursive: true });
      tell(`the data is kept in ${kept}`);
    }
    await cluster.stop({ quiet: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { env } = process;
  const why = whyNoHosts();
  if (why) {
    console.log(`chaos: nothing was run: ${why}`);
    process.exit(1);
  }
  const { bad, summary } = await chaos({
    seconds: Number(env.CHAOS_SECONDS || 600),
    seed: Number(env.CHAOS_SEED || Date.now() % 1000000),
    only: env.CHAOS_KINDS?.split(',').filter(Boolean),
    atOnce: Number(env.CHAOS_AT_ONCE || 4),
    shards: Number(env.CHAOS_SHARDS || 2),
    replicas: Number(env.CHAOS_REPLICAS || 3),
    routers: Number(env.CHAOS_ROUTERS || 3),
    edges: Number(env.CHAOS_EDGES || 2),
  });
  for (const line of bad.slice(0, 50)) console.log(line);
  console.log(summary);
  process.exit(bad.length > 0 ? 1 : 0);
}
