// load.mjs: people who talk all the time, in direct chats and a group, and what became of every message.
import { Client } from './client.mjs';
import { now, sleep, until } from './cluster.mjs';
import { Recorder, checkHistory, compareDevice } from './recorder.mjs';
import assert from 'node:assert/strict';

export class Load {
  // users: how many people; devices: devices of each, the n-th of people[i] for i < devices.length is devices[i] (default 1).
  static async start(cluster, { users = 4, devices = [], seed = 1, pause = 40, patient = false, recorder = new Recorder(cluster.data) } = {}) {
    const load = new Load();
    load.cluster = cluster;
    load.recorder = recorder;
    load.random = random(seed);
    load.pause = pause;
    load.people = Array.from({ length: users }, (_, i) => `u${i}`);
    load.members = {}; // chat -> its users
    load.sent = 0;
    load.slow = []; // { what, from, took }: sends and deliveries with their times
    const also = recorder.delivered?.bind(recorder);
    recorder.delivered = (event, client) => (also?.(event, client), load.delivered(event));
    load.clients = load.people.flatMap((user, i) =>
      Array.from({ length: devices[i] ?? 1 }, (_, d) => new Client(cluster, user, { device: `d${d}`, recorder: load.recorder, patient })));
    await Promise.all(load.clients.map((client) => client.start()));
    const [first, ...others] = load.people;
    const made = await load.of(first).request('chat.create', { client_msg_id: 'make-the-group', kind: 'group', name: 'all', members: others });
    load.group = made.chat;
    load.members[made.chat] = load.people;
    return load;
  }

  of(user, device = 'd0') {
    return this.clients.find((client) => client.user === user && client.device === device);
  }

  // Everybody starts to talk; resolves when talking is over.
  talk() {
    this.talking = true;
    this.running = Promise.all(this.clients.map((client) => this.chatter(client))).catch((error) => (this.failed ??= error));
  }

  async chatter(client) {
    for (let i = 0; this.talking; i++) {
      const n = this.sent++;
      const other = this.people[Math.floor(this.random() * this.people.length)];
      const target = other === client.user || this.random() < 0.25 ? { chat: this.group } : { to: other };
      const client_msg_id = `${client.device}-${n}`;
      const begin = now();
      const sending = client.send(target, `${begin} ${client.user} ${client_msg_id} ${'é'.repeat(Math.floor(this.random() * 40))}`, client_msg_id)
        .then((ack) => {
          this.slow.push({ what: 'acked', from: begin, took: now() - begin });
          this.members[ack.chat] ??= [client.user, other];
        });
      if (i % 4 === 3) await sending; // up to four on their way
      else sending.catch((error) => (this.failed ??= error));
      await sleep(this.random() * 2 * this.pause);
    }
  }

  // Resolves when n more sends were acked.
  async acked(n, ms = 30000) {
    const { acks } = this.recorder;
    await until(`${n} more acks`, () => this.failed || this.recorder.acks >= acks + n, ms, () => this.describe());
    if (this.failed) throw this.failed;
  }

  delivered(event) {
    const begin = Number.parseFloat(event.body ?? '');
    if (begin > 0) this.slow.push({ what: 'delivered', from: begin, took: now() - begin });
  }

  // The longest time a message took that was on its way at some time within [from, to].
  longest(what, from, to) {
    return Math.round(Math.max(0, ...this.slow.filter((s) => s.what === what && s.from < to && s.from + s.took > from).map((s) => s.took)));
  }

  // No new messages; every one on its way gets its ack, every device everything. Gives the ms both took.
  async settle(ms = 60000) {
    this.talking = false;
    const begin = now();
    const tell = () => this.describe();
    await until('every send is answered', () => this.failed || this.clients.every((c) => c.pending.size === 0), ms, tell);
    if (this.failed) throw this.failed;
    await this.running;
    const answered = Math.round(now() - begin);
    const heads = new Map();
    for (const { chat, seq } of this.recorder.rows()) heads.set(chat, Math.max(heads.get(chat) ?? 0, seq));
    const missing = () => this.clients.flatMap((client) => {
      const got = new Map();
      for (const { chat } of client.entries) got.set(chat, (got.get(chat) ?? 0) + 1);
      return [...heads].filter(([chat, head]) => this.members[chat].includes(client.user) && (got.get(chat) ?? 0) < head)
        .map(([chat, head]) => `${client.user}/${client.device} ${chat}: ${got.get(chat) ?? 0} of ${head}`);
    });
    await until('every device has everything', () => missing().length === 0, ms, () => `${missing().join('\n')}\n${tell()}`);
    const complete = Math.round(now() - begin);
    await sleep(300); // what comes twice would come now
    return { answered, complete };
  }

  // History against the acks, devices against history.
  async check() {
    const chats = await checkHistory(this.cluster, this.recorder.rows(), Object.fromEntries(Object.entries(this.members).map(([chat, users]) => [chat, users[0]])));
    const bad = this.clients.flatMap((client) =>
      compareDevice(client, Object.fromEntries(Object.entries(chats).filter(([chat]) => this.members[chat].includes(client.user)))));
    assert.ok(bad.length === 0, `${bad.slice(0, 20).join('\n')}\n${this.describe()}`);
    return Object.values(chats).reduce((n, messages) => n + messages.length, 0);
  }

  stop() {
    this.talking = false;
    for (const client of this.clients) client.stop();
    this.recorder.close();
  }

  describe() {
    const seen = this.clients.map((c) => `${c.user}/${c.device} ${c.state} on ${c.node}: ${c.entries.length} entries, ${c.pending.size} waiting, ${JSON.stringify(summary(c.seen))}`);
    return `${seen.join('\n')}\n${this.cluster.tails()}`;
  }
}

function summary(seen) {
  const count = (list) => list.reduce((n, x) => ({ ...n, [x]: (n[x] ?? 0) + 1 }), {});
  return { ...seen, closes: count(seen.closes), errors: count(seen.errors) };
}

// mulberry32: numbers from 0 to 1, the same ones from the same seed.
export function random(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
