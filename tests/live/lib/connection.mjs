// connection.mjs: a WebSocket (RFC 6455) as a client sees it, over node:net: whole text messages in and out.
import { connect } from 'node:net';
import { OP, frame, handshake } from './ws.mjs';

export class Connection {
  // handler: { open(), text(string), close(code) }, each once at most but text; code null: the socket just ended.
  constructor({ host, port }, handler) {
    this.handler = handler;
    this.buffer = Buffer.alloc(0);
    this.pieces = [];
    this.open = false;
    this.closed = false;
    this.socket = connect({ port, host, noDelay: true });
    this.socket.on('connect', () => this.socket.write(handshake(`${host}:${port}`)));
    this.socket.on('data', (chunk) => this.take(chunk));
    this.socket.on('error', () => {});
    this.socket.on('close', () => this.finish(null));
  }

  send(text) {
    if (this.open && !this.closed) this.socket.write(frame(OP.text, text));
  }

  close(code = 1000) {
    if (this.open && !this.closed) this.socket.write(frame(OP.close, Buffer.from([code >> 8, code & 255])));
    this.drop();
  }

  drop() { // without a word
    this.closed = true;
    this.socket.destroy();
  }

  finish(code) {
    if (this.closed) return;
    this.closed = true;
    this.socket.destroy();
    this.handler.close(code);
  }

  take(chunk) {
    this.buffer = this.buffer.length > 0 ? Buffer.concat([this.buffer, chunk]) : chunk;
    if (!this.open) {
      const end = this.buffer.indexOf('\r\n\r\n');
      if (end < 0) return;
      const head = this.buffer.subarray(0, end).toString('latin1');
      this.buffer = this.buffer.subarray(end + 4);
      if (!head.startsWith('HTTP/1.1 101 ')) return this.finish(null);
      this.open = true;
      this.handler.open();
    }
    let at = 0;
    while (!this.closed) {
      const taken = this.frame(this.buffer.subarray(at));
      if (taken === 0) break;
      at += taken;
    }
    this.buffer = this.buffer.subarray(at);
  }

  // One frame from the beginning of b: its bytes, 0 if it is not whole yet. A server masks nothing.
  frame(b) {
    if (b.length < 2) return 0;
    let size = b[1] & 127;
    let at = 2;
    if (size === 126) {
      if (b.length < 4) return 0;
      size = b.readUInt16BE(2);
      at = 4;
    } else if (size === 127) {
      if (b.length < 10) return 0;
      size = Number(b.readBigUInt64BE(2));
      at = 10;
    }
    if (b.length < at + size) return 0;
    this.event(b[0] & 15, b[0] >= 128, b.subarray(at, at + size));
    return at + size;
  }

  event(opcode, fin, payload) {
    if (opcode === OP.close) return this.finish(payload.length >= 2 ? payload.readUInt16BE(0) : null);
    if (opcode === OP.ping) return void this.socket.write(frame(OP.pong, payload));
    if (opcode !== OP.text && opcode !== OP.cont) return;
    this.pieces.push(Buffer.from(payload));
    if (!fin) return;
    const text = Buffer.concat(this.pieces).toString();
    this.pieces = [];
    this.handler.text(text);
  }
}
