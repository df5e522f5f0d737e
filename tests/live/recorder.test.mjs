// The comparisons of lib/recorder.mjs see what they are there to see.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compareChat, compareDevice } from './lib/recorder.mjs';

const message = (seq) => ({ chat: 'c', seq, message_id: `${100 + seq}`, sender: 'ann', client_msg_id: `m${seq}`, body: `b${seq}` });
const ack = (seq) => ({ chat: 'c', seq, message_id: `${100 + seq}`, client_msg_id: `m${seq}`, user: 'ann' });
const three = () => [message(1), message(2), message(3)];
const device = (entries, seen = {}) => ({ user: 'bob', device: 'd', entries, seen: { holes: 0, repeats: 0, resyncs: 0, ...seen } });
const entry = (seq, inbox_seq) => ({ ...message(seq), inbox_seq });
const list = () => [entry(1, 5), entry(2, 6), entry(3, 7)];

test('a chat that is as it was acked', () => {
  assert.deepEqual(compareChat('c', three(), 3, [ack(1), ack(3)]), []);
});

for (const [what, messages, last, rows, complaint] of [
  ['an ack without its message', three(), 3, [ack(1), ack(4)], /m4\) is missing/],
  ['an ack of another seq', three(), 3, [{ ...ack(2), seq: 1 }], /acked as 1/],
  ['an ack of another message id', three(), 3, [{ ...ack(2), message_id: '7' }], /acked as 2\/7/],
  ['a hole', [message(1), message(3)], 3, [], /entry 2 of history has seq 3/],
  ['a head beyond the last', three(), 4, [], /head 4, but 3/],
  ['one message twice', [...three(), { ...message(4), client_msg_id: 'm2' }], 4, [], /m2 is there twice, as 2 and 4/],
]) {
  test(`a chat with ${what}`, () => assert.match(compareChat('c', messages, last, rows).join('\n'), complaint));
}

test('a device that has everything', () => {
  assert.deepEqual(compareDevice(device(list()), { c: three() }), []);
});

for (const [what, client, complaint] of [
  ['a missing entry', device(list().slice(0, 2)), /entry 3 is seq undefined, history has 3/],
  ['an entry twice', device([...list(), entry(3, 8)]), /entry 4 is seq 3, history has undefined/],
  ['entries out of order', device([entry(2, 5), entry(1, 6), entry(3, 7)]), /entry 1 is seq 2, history has 1/],
  ['a hole in the inbox', device([entry(1, 5), entry(2, 7), entry(3, 8)]), /inbox_seq 7, expected 6/],
  ['another body', device([entry(1, 5), { ...entry(2, 6), body: 'x' }, entry(3, 7)]), /entry 2/],
  ['an entry of a stranger\'s chat', device([...list(), { ...entry(1, 8), chat: 'other' }]), /not theirs/],
  ['a repeat', device(list(), { repeats: 1 }), /1 repeats/],
]) {
  test(`a device with ${what}`, () => assert.match(compareDevice(client, { c: three() }).join('\n'), complaint));
}
