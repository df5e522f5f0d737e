// The short part of `make chaos`: three replicas on hosts of their own under faults of every kind.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chaos, judge } from './chaos.mjs';
import { whyNoHosts } from './lib/hosts.mjs';

const seconds = Number(process.env.CHAOS_SECONDS || 15);
const seed = Number(process.env.CHAOS_SEED || Date.now() % 1000000);
const skip = whyNoHosts() ?? false;
if (skip) console.log(`# chaos is skipped: ${skip}`);

test(`nothing is lost, doubled or reordered between hosts, whatever happens to them (CHAOS_SEED=${seed})`, { skip }, async () => {
  const { bad, summary } = await chaos({ seconds, seed, shards: 1, replicas: 3, users: 5, pause: 100, kills: 0, everyReplica: false });
  console.log(`# ${summary}`);
  assert.ok(bad.length === 0, bad.slice(0, 20).join('\n'));
});

// What is counted is seen: one chat of three messages, one device that has them all, and one thing wrong with it.
const message = (seq) => ({ chat: 'c', seq, message_id: `${100 + seq}`, sender: 'ann', client_msg_id: `m${seq}`, body: `b${seq}` });
const ack = (seq) => ({ chat: 'c', seq, message_id: `${100 + seq}`, client_msg_id: `m${seq}`, user: 'ann', body: `b${seq}` });
const scene = (change) => {
  const messages = [1, 2, 3].map(message);
  const s = { rows: [1, 2, 3].map(ack), entries: messages.map((m, i) => ({ ...m, inbox_seq: i + 1 })), messages };
  change(s);
  return judge({
    rows: s.rows,
    devices: new Map([['bob/d0', s.entries]]),
    clients: [{ user: 'bob', device: 'd0', seen: { holes: 0, repeats: 0, resyncs: 0 } }],
    members: { c: ['ann', 'bob'] },
    chats: { c: { messages: s.messages, last: s.messages.length } },
  });
};

for (const [what, change, want] of [
  ['nothing', () => {}, { missing: 0, doubled: 0, reordered: 0 }],
  ['an ack without its message', (s) => s.rows.push(ack(4)), { missing: 1, doubled: 0, reordered: 0 }],
  ['an entry that did not come', (s) => s.entries.pop(), { missing: 1, doubled: 0, reordered: 0 }],
  ['an entry that came twice', (s) => s.entries.push({ ...message(3), inbox_seq: 4 }), { missing: 0, doubled: 1, reordered: 0 }],
  ['entries out of order', (s) => s.entries.unshift(s.entries.splice(1, 1)[0]), { missing: 0, doubled: 0, reordered: 1 }],
  ['a message stored twice', (s) => s.messages.push({ ...message(4), client_msg_id: 'm1' }) && s.entries.push({ ...message(4), inbox_seq: 4 }), { missing: 0, doubled: 1, reordered: 1 }],
  ['another body', (s) => (s.rows[1].body = 'x'), { missing: 0, doubled: 0, reordered: 0 }],
]) {
  test(`chaos would see: ${what}`, () => {
    const { bad, ...counts } = scene(change);
    assert.deepEqual(counts, want);
    assert.equal(bad.length > 0, what !== 'nothing', bad.join('\n'));
  });
}
