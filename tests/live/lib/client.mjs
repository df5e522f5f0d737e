// client.mjs: one device as docs/protocol.md wants it: cursor, cumulative acks, full-jitter backoff, after_ms honoured, a
// request sent again byte for byte until its answer is final. It keeps every inbox entry it got, and counts what must not be.
import { randomUUID } from 'node:crypto';
import { Connection } from './connection.mjs';
import { now } from './cluster.mjs';

const ACK_MS = 20;
const PING_MS = 1000;
const SILENT_MS = 10000;
const ANSWER_MS = 15000;
const BACKOFF_MS = 200;
const BACKOFF_CAP_MS = 10000;

export class Client {
  // recorder: told of every ack before anything else happens with it.
  // patient: what is refused for now (`later`) is sent again as well.
  constructor(cluster, user, { device = 'd1', name, recorder, cursor, patient = false } = {}) {
    Object.assign(this, { cluster, user, device, recorder, cursor, patient });
    this.token = cluster.token(user, { name });
    this.entries = [];
    this.pending = new Map(); // request id -> { text, done, fail, timer, begin, story }
    this.slowest = { took: 0, story: [] }; // of the requests that were answered; story: what happened to it, with the ms since its begin
    this.nextId = 1;
    this.tries = 0;
    this.state = 'new'; // waiting, connecting, ready, stopped
    this.seen = { connects: 0, resyncs: 0, holes: 0, repeats: 0, reconnects: 0, closes: [], errors: [] };
    this.behind = 0;
    this.waiters = [];
  }

  start() {
    this.connect();
    this.timer = setInterval(() => this.tick(), PING_MS);
    return this.ready();
  }

  stop() {
    this.state = 'stopped';
    clearInterval(this.timer);
    clearTimeout(this.retry);
    clearTimeout(this.ackTimer);
    for (const p of this.pending.values()) clearTimeout(p.timer);
    this.connection?.close();
  }

  // Resolves at the next welcome (at once if it is logged in).
  ready(ms = 30000) {
    if (this.state === 'ready') return Promise.resolve();
    return new Promise((done, fail) => {
      const timer = setTimeout(() => fail(new Error(`${this.user}/${this.device} is not logged in: ${JSON.stringify(this.seen)}`)), ms);
      this.waiters.push(() => (clearTimeout(timer), done()));
    });
  }

  // ---- requests ----

  // The final answer's frame; an error that does not say `same` fails.
  request(type, fields = {}) {
    const id = this.nextId++;
    const text = JSON.stringify({ type, id, ...fields });
    return new Promise((done, fail) => {
      this.pending.set(id, { text, done, fail, type, begin: now(), story: [] });
      this.sendPending(id);
    });
  }

  // Send a text. target: { chat } or { to }.
  send(target, body, client_msg_id = randomUUID()) {
    return this.request('send', { ...target, client_msg_id, body });
  }

  sendPending(id) {
    const p = this.pending.get(id);
    if (!p || this.state !== 'ready') return;
    clearTimeout(p.timer);
    this.connection.send(p.text);
    this.note(p, `to ${this.node}`);
    p.timer = setTimeout(() => this.pending.has(id) && this.lost('no answer'), ANSWER_MS);
  }

  answer(event) {
    const p = this.pending.get(event.id);
    if (!p) return;
    clearTimeout(p.timer);
    if (event.type === 'error') {
      this.seen.errors.push(event.name);
      this.note(p, event.name);
      if (event.retry === 'same' || (this.patient && event.retry === 'later')) {
        p.timer = setTimeout(() => this.sendPending(event.id), event.after_ms + Math.random() * event.after_ms);
        return;
      }
      this.pending.delete(event.id);
      p.fail(Object.assign(new Error(`${p.type}: ${event.name}: ${event.message}`), { event }));
      return;
    }
    if (event.type === 'ack') this.recorder?.acked(event, this.user, p.text);
    this.pending.delete(event.id);
    const took = now() - p.begin;
    if (took > this.slowest.took) this.slowest = { took, story: p.story };
    p.done(event);
  }

  note(p, what) {
    p.story.push(`${Math.round(now() - p.begin)} ${what}`);
  }

  // ---- the connection ----

  connect() {
    this.state = 'connecting';
    this.seen.connects++;
    this.heard = now();
    this.connection?.drop();
    const connection = new Connection(this.cluster.address(this), {
      open: () => {
        const cursor = this.cursor && { cursor: this.cursor };
        this.attempt = Math.max(Date.now(), (this.attempt ?? 0) + 1);
        connection.send(JSON.stringify({ type: 'hello', id: this.nextId++, token: this.token, device: this.device, attempt: this.attempt, ...cursor }));
      },
      text: (text) => {
        for (const line of text.split('\n')) if (line && this.connection === connection) this.event(JSON.parse(line));
      },
      close: (code) => this.connection === connection && this.lost(code),
    });
    this.connection = connection;
  }

  lost(code) {
    if (this.state === 'stopped') return;
    this.seen.closes.push(code);
    for (const p of this.pending.values()) this.note(p, `lost: ${code}`);
    this.connection.drop();
    if (code >= 4000 && code < 4100) return this.stop();
    this.state = 'waiting';
    const cap = Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** this.tries++);
    this.connectIn(code >= 4200 && code < 4300 ? 0 : Math.random() * cap);
  }

  connectIn(ms) {
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.state !== 'stopped' && this.connect(), ms);
  }

  tick() {
    if (this.state === 'ready') this.connection.send('{"type":"ping"}');
    if ((this.state === 'ready' || this.state === 'connecting') && now() - this.heard > SILENT_MS) this.lost('silent');
  }

  ack() {
    this.ackTimer ??= setTimeout(() => {
      this.ackTimer = null;
      if (this.state === 'ready') this.connection.send(JSON.stringify({ type: 'ack', inbox_seq: this.cursor.inbox_seq }));
    }, ACK_MS);
  }

  // ---- what comes ----

  event(event) {
    this.heard = now();
    if (event.type === 'welcome') return this.welcome(event);
    if (event.type === 'message') return this.message(event);
    if (event.type === 'resync') return this.resync(event);
    if (event.type === 'pong') return this.pong(event);
    if (event.type === 'reconnect') {
      this.seen.reconnects++;
      this.connectIn((event.after_ms ?? 0) + Math.random() * (event.jitter_ms ?? 0));
    } else if (event.type === 'error' && !this.pending.has(event.id)) {
      this.seen.errors.push(event.name);
    } else if (event.id) {
      this.answer(event);
    }
  }

  welcome(event) {
    this.state = 'ready';
    this.tries = 0;
    this.node = event.node;
    for (const id of this.pending.keys()) this.sendPending(id);
    for (const waiter of this.waiters.splice(0)) waiter();
  }

  resync(event) {
    if (this.cursor) this.seen.resyncs++; // the first one has nothing to forget
    this.cursor = { era: event.era, inbox_seq: event.inbox_seq ?? 0 };
  }

  message(event) {
    if (!event.inbox_seq) return;
    if (event.era !== this.cursor?.era || event.inbox_seq > this.cursor.inbox_seq + 1) {
      this.seen.holes++;
      return this.lost('hole');
    }
    if (event.inbox_seq <= this.cursor.inbox_seq) {
      this.seen.repeats++;
      return;
    }
    event.at = now();
    this.entries.push(event);
    this.recorder?.delivered?.(event, this);
    this.cursor = { era: event.era, inbox_seq: event.inbox_seq };
    this.ack();
  }

  // The head is beyond what came, twice without progress: something was lost on the way, attach anew.
  pong(event) {
    const stuck = (event.inbox_head ?? 0) > (this.cursor?.inbox_seq ?? 0) && this.cursor?.inbox_seq === this.lastSeen;
    this.behind = stuck ? this.behind + 1 : 0;
    this.lastSeen = this.cursor?.inbox_seq;
    if (this.behind >= 8) {
      this.behind = 0;
      this.seen.stuck = (this.seen.stuck ?? 0) + 1;
      this.lost('behind');
    }
  }

  // Every message of a chat, oldest first, and its head.
  async history(chat) {
    const all = [];
    let page;
    do {
      page = await this.request('history', { chat, limit: 200, ...(all.length > 0 ? { after: all.at(-1).seq } : { from_start: true }) });
      all.push(...(page.messages ?? []));
    } while (page.has_more);
    return { messages: all, last: page.last_seq };
  }
}
