// Bad input on the edge's port, byte by byte.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import test, { after } from 'node:test';
import { Cluster } from './lib/cluster.mjs';
import { OP, Raw, acceptOf, frame, handshake } from './lib/ws.mjs';

const FRAME_MAX = 512 * 1024;
const cluster = await Cluster.up({ edges: 1, routers: 1 });
const token = cluster.token('bad');
const port = cluster.port;
const hostname = '127.0.0.1';
const host = `${hostname}:${port}`;
let devices = 0;

after(async () => {
  await cluster.stop({ quiet: true });
});

async function ask(request) {
  const raw = new Raw(hostname, port);
  raw.send(request);
  const answer = await raw.head();
  if (answer && answer.status !== 101) {
    await raw.end();
    answer.body = raw.input.toString();
  }
  raw.destroy();
  return answer;
}

async function open(headers = {}) {
  const raw = new Raw(hostname, port);
  raw.send(handshake(host, headers));
  const answer = await raw.head();
  assert.equal(answer?.status, 101);
  return raw;
}

function hello() {
  devices++;
  return JSON.stringify({ type: 'hello', id: 1, token, device: `bad-${process.pid}-${devices}` });
}

async function loggedIn() {
  const raw = await open();
  raw.send(frame(OP.text, hello()));
  assert.equal((await raw.event('welcome')).id, 1);
  return raw;
}

async function closesWith(bytes, codes, raw) {
  const r = raw ?? (await open());
  r.send(bytes);
  const { code } = await r.closing();
  assert.ok([].concat(codes).includes(code), `closed with ${code}, expected ${codes}`);
  r.destroy();
}

// These take 10 s: begun here, looked at in the end.
const half = new Raw(hostname, port);
half.send('GET / HTTP/1.1\r\nHost: a');
const halfEnds = half.end(13000);
const mute = await open();
const muteEnds = mute.closing(13000);
for (const promise of [halfEnds, muteEnds]) promise.catch(() => {});

// ---- the handshake ----

test('the handshake is answered as RFC 6455 says, with the subprotocol alone', async () => {
  const key = randomBytes(16).toString('base64');
  const raw = new Raw(hostname, port);
  raw.send(handshake(host, { 'Sec-WebSocket-Key': key, 'Sec-WebSocket-Protocol': `parley.v1.json, token.${token}` }));
  const answer = await raw.head();
  assert.equal(answer.status, 101);
  assert.equal(answer.headers['sec-websocket-accept'], acceptOf(key));
  assert.equal(answer.headers['sec-websocket-protocol'], 'parley.v1.json');
  assert.equal(answer.headers['sec-websocket-extensions'], undefined);
  raw.destroy();
});

test('the token may come as the second subprotocol entry', async () => {
  const raw = await open({ 'Sec-WebSocket-Protocol': `parley.v1.json, token.${token}` });
  raw.send(frame(OP.text, JSON.stringify({ type: 'hello', id: 7, device: `bad-sub-${process.pid}` })));
  assert.equal((await raw.event('welcome')).id, 7);
  raw.destroy();
});

test('bytes behind the handshake in the same packet are frames', async () => {
  const raw = new Raw(hostname, port);
  raw.send(Buffer.concat([Buffer.from(handshake(host)), frame(OP.text, hello())]));
  assert.equal((await raw.head()).status, 101);
  assert.equal((await raw.event('welcome')).id, 1);
  raw.destroy();
});

test('a handshake in single bytes works', async () => {
  const raw = new Raw(hostname, port);
  for (const byte of handshake(host)) {
    raw.send(byte);
    await new Promise(setImmediate);
  }
  assert.equal((await raw.head()).status, 101);
  raw.destroy();
});

for (const [origin, status] of [
  [`http://${host}`, 101],
  [`https://${host}`, 101],
  ['https://evil.example', 403],
  [`http://${host}.evil.example`, 403],
  [`http://${hostname}:1`, 403],
  ['null', 403],
  ['', 403],
]) {
  test(`Origin '${origin}' is answered ${status}`, async () => {
    assert.equal((await ask(handshake(host, { Origin: origin }))).status, status);
  });
}

test('a token in the URL is refused', async () => {
  for (const path of [`/v1/ws?token=${token}`, '/v1/ws?a=1&access_token=x', '/?Token=x']) {
    assert.equal((await ask(handshake(host, {}, path))).status, 400, path);
  }
});

for (const [what, request, status] of [
  ['another path', handshake(host, {}, '/v2/ws'), 404],
  ['no subprotocol of ours', handshake(host, { 'Sec-WebSocket-Protocol': 'chat' }), 400],
  ['no subprotocol', handshake(host, { 'Sec-WebSocket-Protocol': null }), 400],
  ['version 8', handshake(host, { 'Sec-WebSocket-Version': '8' }), 426],
  ['a short key', handshake(host, { 'Sec-WebSocket-Key': 'AAAA' }), 400],
  ['no key', handshake(host, { 'Sec-WebSocket-Key': null }), 400],
  ['POST', handshake(host, {}, '/v1/ws', 'POST'), 405],
  ['a body', handshake(host, { 'Content-Length': '5' }), 400],
  ['no upgrade', `GET /v1/ws HTTP/1.1\r\nHost: ${host}\r\n\r\n`, 426],
  ['POST to a file', `POST / HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 3\r\n\r\nabc`, 405],
  ['no Host', 'GET / HTTP/1.1\r\n\r\n', 400],
  ['two Hosts', `GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n`, 400],
  ['a folded line', `GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n`, 400],
  ['a bare LF', `GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n`, 400],
  ['a NUL', `GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n`, 400],
  ['a blank before the colon', `GET / HTTP/1.1\r\nHost : a\r\n\r\n`, 400],
  ['HTTP/2', `GET / HTTP/2.0\r\nHost: a\r\n\r\n`, 400],
  ['an absolute target', `GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n`, 400],
  ['not HTTP', '\x16\x03\x01\x02\x00\x01\r\n\r\n', 400],
  ['a head of 9 KiB', `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(9000)}\r\n\r\n`, 431],
  ['200 header lines', `GET / HTTP/1.1\r\nHost: a\r\n${'X: y\r\n'.repeat(200)}\r\n`, 400],
]) {
  test(`${what} is answered ${status}`, async () => {
    assert.equal((await ask(request)).status, status);
  });
}

// ---- plain HTTP ----

test('nothing outside of the web directory is served', async () => {
  for (const path of ['/../../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '//etc/passwd', '/.git/config', '/index.html/']) {
    assert.equal((await ask(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`)).status, 404, path);
  }
});

test('every answer carries the security headers and ends the connection', async () => {
  for (const path of ['/', '/healthz', '/nothing']) {
    const { headers } = await ask(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    assert.match(headers['content-security-policy'], /default-src 'self'/);
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert.equal(headers['referrer-policy'], 'no-referrer');
    assert.ok(headers['cache-control']);
    assert.equal(headers.connection, 'close');
  }
});

test('metrics are for loopback alone, and not through a proxy', async () => {
  const direct = await ask(`GET /metrics HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  assert.equal(direct.status, 200);
  assert.match(direct.body, /^parley_edge_websockets/m);
  const proxied = await ask(`GET /metrics HTTP/1.1\r\nHost: ${host}\r\nX-Forwarded-For: 10.1.2.3\r\n\r\n`);
  assert.equal(proxied.status, 404);
});

// ---- frames ----

for (const [what, bytes, codes] of [
  ['reserved bits', frame(OP.text, '{}', { rsv: 4 }), 1002],
  ['opcode 3', frame(3, 'x'), 1002],
  ['opcode 11', frame(11, 'x'), 1002],
  ['a continuation of nothing', frame(OP.cont, 'x'), 1002],
  ['a message inside a message', Buffer.concat([frame(OP.text, '{', { fin: false }), frame(OP.text, '}')]), 1002],
  ['a fragmented ping', frame(OP.ping, 'x', { fin: false }), 1002],
  ['a ping of 126 bytes', frame(OP.ping, Buffer.alloc(126)), [1002, null]],
  ['invalid UTF-8', frame(OP.text, Buffer.from([0x22, 0xc3, 0x28, 0x22])), 1007],
  ['an overlong NUL', frame(OP.text, Buffer.from([0x22, 0xc0, 0x80, 0x22])), 1007],
  ['a surrogate', frame(OP.text, Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])), 1007],
  ['binary for JSON', frame(OP.binary, '{}'), 4000],
  ['a length with its top bit set', Buffer.from([0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]), [1002, 1009, null]],
]) {
  test(`${what} closes the socket`, async () => {
    await closesWith(bytes, codes);
  });
}

test('text for protobuf closes the socket', async () => {
  const raw = await open({ 'Sec-WebSocket-Protocol': 'parley.v1.protobuf' });
  raw.send(frame(OP.text, '{}'));
  const { code } = await raw.closing();
  assert.ok(code >= 4000 && code < 4100, `${code}`);
  raw.destroy();
});

test('a frame above the limit is cut by its declared length, before its bytes come', async () => {
  for (const declared of [FRAME_MAX + 1, 2 ** 40, 2 ** 52]) {
    await closesWith(frame(OP.text, 'x', { declared }), 1009);
  }
});

test('endless fragments are cut at the limit', async () => {
  const raw = await open();
  const piece = Buffer.alloc(16 * 1024, 0x20);
  raw.send(frame(OP.text, piece, { fin: false }));
  for (let i = 0; i < FRAME_MAX / piece.length + 1; i++) raw.send(frame(OP.cont, piece, { fin: false }));
  const { code } = await raw.closing();
  assert.equal(code, 1009);
  raw.destroy();
});

test('a message of exactly the limit is read', async () => {
  const raw = await loggedIn();
  const ping = JSON.stringify({ type: 'ping', id: 5, pad: '' });
  const pad = 'x'.repeat(FRAME_MAX - ping.length);
  raw.send(frame(OP.text, JSON.stringify({ type: 'ping', id: 5, pad })));
  assert.equal((await raw.event('pong')).id, 5);
  raw.destroy();
});

test('a hello in fragments of one byte works, with pings between', async () => {
  const raw = await open();
  const text = Buffer.from(hello());
  for (let i = 0; i < text.length; i++) {
    raw.send(frame(i === 0 ? OP.text : OP.cont, text.subarray(i, i + 1), { fin: i === text.length - 1 }));
    if (i === 10) raw.send(frame(OP.ping, 'here?'));
  }
  const first = await raw.message();
  assert.equal(first.opcode, OP.pong);
  assert.equal(first.payload.toString(), 'here?');
  assert.equal((await raw.event('welcome')).id, 1);
  raw.destroy();
});

test('empty messages and empty fragments harm nothing', async () => {
  const raw = await loggedIn();
  raw.send(Buffer.concat([frame(OP.text, '', { fin: false }), frame(OP.cont, '', { fin: false })]));
  raw.send(frame(OP.cont, '{"type":"ping","id":9}'));
  assert.equal((await raw.event('pong')).id, 9);
  raw.destroy();
});

test('a close is answered with the same code', async () => {
  const raw = await open();
  raw.send(frame(OP.close, Buffer.from([0x03, 0xe8])));
  const { code } = await raw.closing();
  assert.equal(code, 1000);
  await raw.end();
});

test('a ping flood is survived', async () => {
  const raw = await loggedIn();
  const pings = Buffer.concat(Array.from({ length: 5000 }, () => frame(OP.ping, 'x')));
  raw.send(pings);
  raw.send(frame(OP.text, '{"type":"ping","id":3}'));
  assert.equal((await raw.event('pong')).id, 3);
  raw.destroy();
});

// ---- frames of the protocol ----

for (const [what, text] of [
  ['not JSON', 'hello there'],
  ['half of JSON', '{"type":"ping"'],
  ['a duplicate key', '{"type":"ping","id":1,"id":2}'],
  ['a depth bomb', '['.repeat(100000)],
  ['an array', '[]'],
  ['a wrong type', '{"type":"ping","id":"one"}'],
  ['an integer beyond range', '{"type":"ping","id":9007199254740993}'],
  ['a negative id', '{"type":"ping","id":-1}'],
  ['a huge exponent', '{"type":"ping","id":1e400}'],
  ['a NUL', '{"type":"send","id":1,"chat":"a\\u0000b"}'],
  ['a lone surrogate', '{"type":"send","id":1,"body":"\\ud800"}'],
  ['an unknown type', '{"type":"sudo","id":1}'],
  ['no type', '{"id":1}'],
]) {
  test(`${what} is one error, and the socket lives or is closed with 40xx`, async () => {
    const raw = await loggedIn();
    raw.send(frame(OP.text, text));
    const event = await raw.event('error');
    assert.ok(event && event.code >= 100 && event.code < 200, JSON.stringify(event));
    raw.send(frame(OP.text, '{"type":"ping","id":77}'));
    const next = await raw.event('pong');
    assert.ok(next === null || next.id === 77);
    raw.destroy();
  });
}

test('anything before hello is an error', async () => {
  const raw = await open();
  raw.send(frame(OP.text, '{"type":"chats","id":4}'));
  const event = await raw.event('error');
  assert.equal(event.name, 'hello_first');
  raw.destroy();
});

test('a second hello is an error', async () => {
  const raw = await loggedIn();
  raw.send(frame(OP.text, hello()));
  assert.equal((await raw.event('error')).name, 'hello_twice');
  raw.destroy();
});

test('a wrong token is refused and the socket closed', async () => {
  for (const bad of ['', 'x', 'a.b.c', `${token}x`, token.split('.').slice(0, 2).join('.') + '.']) {
    const raw = await open();
    raw.send(frame(OP.text, JSON.stringify({ type: 'hello', id: 1, device: 'd', token: bad })));
    const { code, events } = await raw.closing();
    assert.equal(events[0]?.name, 'unauthorized', bad);
    assert.ok(code >= 4300 && code < 4400, `${code}`);
    raw.destroy();
  }
});

// ---- what was begun above ----

test('half a request is closed after 10 s', async () => {
  assert.equal(await halfEnds, true);
});

test('no hello within 10 s closes the socket', async () => {
  const { code } = await muteEnds;
  assert.equal(code, 4100);
  mute.destroy();
});

test('the cluster ends well', async () => {
  await cluster.stop();
});
