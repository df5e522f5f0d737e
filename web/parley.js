// parley.js: a parley client for browsers, over the parley.v1.json WebSocket subprotocol (docs/protocol.md).
//
// What it promises its owner: every inbox entry once and in order ("message" events), every send() stored once however often
// the connection breaks, and an explicit "resync" when there is nothing to resume from. It keeps (era, inbox_seq) as its
// cursor and acknowledges only what the owner has been handed.

const ACK_DELAY_MS = 50;
const BACKOFF_BASE_MS = 200;
const BACKOFF_CAP_MS = 10000;
const WELCOME_TIMEOUT_MS = 10000;

// Storage may be full, and touching it at all may be forbidden: what it would keep is then not kept.
function quietly(use) {
  try {
    return use();
  } catch {
    return null;
  }
}

const sessionStorageIfAny = () => quietly(() => globalThis.sessionStorage) ?? null;

export class ParleyError extends Error {
  constructor(frame) {
    super(frame.message || frame.name);
    this.code = frame.code;
    this.name = frame.name;
    this.retry = frame.retry || 'no';
    this.afterMs = frame.after_ms || 0;
  }
}

export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}

// Events: "state" (detail: connecting | online | offline | closed), "welcome", "message", "resync", "live", "fatal" (detail: reason).
export class Parley extends EventTarget {
  #url;
  #token;
  #device;
  #storage;
  #socket = null;
  #cursor = null;
  #acked = 0;
  #ackTimer = 0;
  #nextId = 1;
  #waiting = new Map(); // request id -> {frame, resolve, reject}; asked again after a reconnect
  #attempt = 0;
  #lastHello = 0;
  #afterMs = 0;
  #heartbeat = 0;
  #lastHeard = 0;
  #stopped = false;
  #timer = 0;
  #suspect = 0; // inbox_seq that a pong said exists and that has not come

  // storage keeps the number of the last hello over a reload; null, or where the browser forbids it: nothing does.
  constructor({ url, token, device, storage = sessionStorageIfAny() }) {
    super();
    this.#url = url;
    this.#token = token;
    this.#device = device;
    this.#storage = storage;
    this.#lastHello = Number(quietly(() => storage?.getItem(this.#helloKey()))) || 0;
    addEventListener('online', () => this.#reconnectNow());
    addEventListener('offline', () => this.#drop());
  }

  connect() {
    this.#stopped = false;
    this.#open();
  }

  close() {
    this.#stopped = true;
    this.#drop();
    this.#emit('state', 'closed');
  }

  // Resolves with the ack once the message is stored; retried with the same client_msg_id until then.
  send({ chat, to, body, clientMsgId = randomId() }) {
    return this.#request({ type: 'send', chat, to, body, client_msg_id: clientMsgId });
  }
  createGroup(name, members) {
    return this.#request({ type: 'chat.create', name, members, client_msg_id: randomId() });
  }
  createDirect(user) {
    return this.#request({ type: 'chat.create', kind: 'direct', members: [user], client_msg_id: randomId() });
  }
  history(chat, { before, after, limit = 50 } = {}) {
    return this.#request({ type: 'history', chat, before, after, limit });
  }
  chats(before) {
    return this.#request({ type: 'chats', before });
  }
  members(chat) {
    return this.#request({ type: 'members', chat });
  }
  read(chat, seq) {
    return this.#request({ type: 'read', chat, seq });
  }
  setActive(active) {
    if (this.#ready()) this.#write({ type: 'state', state: active ? 'active' : 'inactive' });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
  #ready() {
    return this.#socket !== null && this.#socket.readyState === WebSocket.OPEN && this.#socket.welcomed;
  }
  #write(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  #request(frame) {
    frame.id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(frame.id, { frame, resolve, reject });
      if (this.#ready()) this.#write(frame);
    });
  }

  #open() {
    clearTimeout(this.#timer);
    if (this.#stopped || this.#socket) return;
    this.#emit('state', 'connecting');
    const socket = new WebSocket(this.#url, ['parley.v1.json']);
    this.#socket = socket;
    socket.welcomed = false;
    socket.onopen = () => {
      this.#lastHeard = Date.now();
      const attempt = this.#countHello();
      this.#write({ type: 'hello', id: this.#nextId++, token: this.#token, device: this.#device, cursor: this.#cursor ?? undefined, attempt });
    };
    socket.onmessage = (event) => {
      this.#lastHeard = Date.now();
      for (const line of event.data.split('\n')) if (line) this.#receive(socket, JSON.parse(line));
    };
    socket.onclose = (event) => this.#closed(socket, event.code, event.reason);
    socket.timeout = setTimeout(() => socket.welcomed || this.#drop(), WELCOME_TIMEOUT_MS);
  }

  #helloKey() {
    return `parley-hello-${this.#device}`;
  }

  // Of two sockets of this device the server keeps that of the highest number: the clock, but always above the last one.
  #countHello() {
    this.#lastHello = Math.max(Date.now(), this.#lastHello + 1);
    quietly(() => this.#storage?.setItem(this.#helloKey(), String(this.#lastHello)));
    return this.#lastHello;
  }

  #drop() {
    const socket = this.#socket;
    if (!socket) return;
    socket.close();
    this.#closed(socket, 1006, '');
  }

  // 40xx do not retry, 41xx back off, 42xx reconnect now elsewhere, 43xx get a new token
  #closed(socket, code, reason) {
    if (this.#socket !== socket) return;
    this.#socket = null;
    clearTimeout(socket.timeout);
    clearInterval(this.#heartbeat);
    if (this.#stopped) return;
    this.#emit('state', 'offline');
    const kind = Math.floor(code / 100);
    if (kind === 40 || kind === 43) {
      this.#stopped = true;
      this.#emit('fatal', reason || `closed with ${code}`);
      return;
    }
    const cap = Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** this.#attempt++);
    const wait = kind === 42 ? this.#afterMs : this.#afterMs + Math.random() * cap;
    this.#afterMs = 0;
    this.#timer = setTimeout(() => this.#open(), wait);
  }

  #reconnectNow() {
    this.#attempt = 0;
    this.#open();
  }

  #receive(socket, frame) {
    if (this.#socket !== socket) return;
    switch (frame.type) {
      case 'welcome':
        this.#welcome(socket, frame);
        break;
      case 'resync':
        this.#cursor = { era: frame.era, inbox_seq: frame.inbox_seq || 0 };
        this.#acked = this.#cursor.inbox_seq;
        this.#emit('resync', frame);
        break;
      case 'message':
        if (frame.inbox_seq) this.#entry(frame);
        break;
      case 'live':
        this.#emit('live', frame);
        break;
      case 'reconnect':
        this.#afterMs = (frame.after_ms || 0) + Math.random() * (frame.jitter_ms || 0);
        break;
      case 'pong':
        if (this.#cursor && (frame.inbox_head || 0) > this.#cursor.inbox_seq) this.#behind();
        else this.#suspect = 0;
        break;
      default:
        this.#answer(frame);
    }
  }

  // The head is ahead of us: entries may be on their way. Twice in a row at the same place means one was lost.
  #behind() {
    if (this.#suspect === this.#cursor.inbox_seq + 1) this.#drop();
    else this.#suspect = this.#cursor.inbox_seq + 1;
  }

  #welcome(socket, frame) {
    socket.welcomed = true;
    this.#attempt = 0;
    const every = (frame.heartbeat_ms || 30000) / 2;
    this.#heartbeat = setInterval(() => {
      if (Date.now() - this.#lastHeard > every * 4) this.#drop();
      else if (this.#ready()) this.#write({ type: 'ping' });
    }, every);
    this.#emit('welcome', frame);
    this.#emit('state', 'online');
    for (const { frame: again } of this.#waiting.values()) this.#write(again);
  }

  #entry(frame) {
    if (!this.#cursor || frame.era !== this.#cursor.era || frame.inbox_seq <= this.#cursor.inbox_seq) return;
    if (frame.inbox_seq !== this.#cursor.inbox_seq + 1) {
      this.#drop(); // a hole is never shown: come back with the cursor
      return;
    }
    this.#emit('message', frame);
    this.#cursor.inbox_seq = frame.inbox_seq;
    if (!this.#ackTimer) this.#ackTimer = setTimeout(() => this.#ack(), ACK_DELAY_MS);
  }

  #ack() {
    this.#ackTimer = 0;
    if (this.#ready() && this.#cursor.inbox_seq > this.#acked) {
      this.#acked = this.#cursor.inbox_seq;
      this.#write({ type: 'ack', inbox_seq: this.#acked });
    }
  }

  #answer(frame) {
    const asked = this.#waiting.get(frame.id);
    if (!asked) return;
    if (frame.type === 'error' && (frame.retry === 'same' || frame.retry === 'later')) {
      setTimeout(() => this.#waiting.has(frame.id) && this.#ready() && this.#write(asked.frame), frame.after_ms || 1000);
      return;
    }
    this.#waiting.delete(frame.id);
    if (frame.type === 'error') asked.reject(new ParleyError(frame));
    else asked.resolve(frame);
  }
}
