// ws.mjs: frames of RFC 6455 made by hand, so that tests can send what no library would, and a TCP connection to send them on.
import net from 'node:net';
import { createHash, randomBytes } from 'node:crypto';

export const OP = { cont: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

// One client frame. options: fin, rsv (0..7), masked, declared (a length that is not the payload's).
export function frame(opcode, payload = Buffer.alloc(0), options = {}) {
  const { fin = true, rsv = 0, masked = true, declared } = options;
  const body = Buffer.from(payload);
  const length = declared ?? body.length;
  const head = [(fin ? 0x80 : 0) | (rsv << 4) | opcode];
  const bit = masked ? 0x80 : 0;
  if (length < 126) {
    head.push(bit | length);
  } else if (length < 65536) {
    head.push(bit | 126, length >> 8, length & 255);
  } else {
    const big = Buffer.alloc(8);
    big.writeBigUInt64BE(BigInt(length));
    head.push(bit | 127, ...big);
  }
  if (!masked) return Buffer.concat([Buffer.from(head), body]);
  const mask = randomBytes(4);
  for (let i = 0; i < body.length; i++) body[i] ^= mask[i & 3];
  return Buffer.concat([Buffer.from(head), mask, body]);
}

// A TCP connection whose bytes are kept until somebody asks.
export class Raw {
  constructor(host, port) {
    this.input = Buffer.alloc(0);
    this.ended = false;
    this.waiters = [];
    this.socket = net.connect({ host, port, noDelay: true });
    this.socket.on('data', (chunk) => {
      this.input = Buffer.concat([this.input, chunk]);
      this.wake();
    });
    const end = () => {
      this.ended = true;
      this.wake();
    };
    this.socket.on('end', end);
    this.socket.on('close', end);
    this.socket.on('error', end); // a reset is an end as well
  }

  wake() {
    for (const waiter of this.waiters.splice(0)) waiter();
  }

  send(bytes) {
    if (!this.socket.destroyed) this.socket.write(bytes);
  }

  destroy() {
    this.socket.destroy();
  }

  // Wait until take() gives something else than undefined; null when the connection ended before that.
  async until(take, ms = 5000) {
    const stop = Date.now() + ms;
    for (;;) {
      const got = take();
      if (got !== undefined) return got;
      if (this.ended) return null;
      const left = stop - Date.now();
      if (left <= 0) throw new Error(`nothing came for ${ms} ms`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.waiters.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  // The head of an HTTP answer: {status, headers, text}; the rest stays in the input.
  head(ms) {
    return this.until(() => {
      const end = this.input.indexOf('\r\n\r\n');
      if (end < 0) return undefined;
      const text = this.input.subarray(0, end).toString('latin1');
      this.input = this.input.subarray(end + 4);
      const [first, ...lines] = text.split('\r\n');
      const headers = {};
      for (const line of lines) {
        const colon = line.indexOf(':');
        headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
      }
      return { status: Number(first.split(' ')[1]), headers, text };
    }, ms);
  }

  async end(ms = 5000) {
    return this.until(() => (this.ended ? true : undefined), ms);
  }

  // The next frame from the server: {opcode, fin, payload, code} (code and reason of a close); null at the end.
  message(ms) {
    return this.until(() => {
      const b = this.input;
      if (b.length < 2) return undefined;
      let size = b[1] & 127;
      let at = 2;
      if (size === 126) {
        if (b.length < 4) return undefined;
        size = b.readUInt16BE(2);
        at = 4;
      } else if (size === 127) {
        if (b.length < 10) return undefined;
        size = Number(b.readBigUInt64BE(2));
        at = 10;
      }
      if (b.length < at + size) return undefined;
      const payload = Buffer.from(b.subarray(at, at + size));
      this.input = b.subarray(at + size);
      const out = { opcode: b[0] & 15, fin: b[0] >= 128, payload };
      if (out.opcode === OP.close && size >= 2) {
        out.code = payload.readUInt16BE(0);
        out.reason = payload.subarray(2).toString();
      }
      return out;
    }, ms);
  }

  // The next whole message: fragments are joined; control frames come as they are.
  async whole(ms) {
    for (;;) {
      const m = await this.message(ms);
      if (m === null || m.opcode >= 8) return m;
      this.parts ??= [];
      this.parts.push(m);
      if (!m.fin) continue;
      const parts = this.parts;
      this.parts = undefined;
      return { opcode: parts[0].opcode, fin: true, payload: Buffer.concat(parts.map((p) => p.payload)), fragments: parts.length };
    }
  }

  // Read on until the server closes; gives {code, reason, events}: the close frame's, and the JSON events before it.
  async closing(ms = 5000) {
    const events = [];
    for (;;) {
      const m = await this.whole(ms);
      if (m === null) return { code: null, reason: '', events };
      if (m.opcode === OP.close) return { code: m.code, reason: m.reason, events };
      if (m.opcode === OP.text) {
        for (const line of m.payload.toString().split('\n')) if (line) events.push(JSON.parse(line));
      }
    }
  }

  // The next JSON event of that type (or the first of any).
  async event(type, ms = 5000) {
    this.events ??= [];
    for (;;) {
      while (this.events.length > 0) {
        const event = this.events.shift();
        if (!type || event.type === type) return event;
      }
      const m = await this.whole(ms);
      if (m === null || m.opcode === OP.close) return null;
      if (m.opcode === OP.text) {
        for (const line of m.payload.toString().split('\n')) if (line) this.events.push(JSON.parse(line));
      }
    }
  }
}

export function acceptOf(key) {
  return createHash('sha1').update(key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
}

// The handshake's request. headers: added or, with null, left out.
export function handshake(host, headers = {}, path = '/v1/ws', method = 'GET') {
  const all = {
    Host: host,
    Upgrade: 'websocket',
    Connection: 'Upgrade',
    'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Protocol': 'parley.v1.json',
    ...headers,
  };
  const lines = Object.entries(all).filter(([, value]) => value !== null).map(([name, value]) => `${name}: ${value}`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`;
}
