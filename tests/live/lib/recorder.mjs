// recorder.mjs: keeps acks outside of the system, on a file, and compares what is there with them afterwards.
import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { now } from './cluster.mjs';
import { Client } from './client.mjs';

export class Recorder {
  constructor(dir) {
    this.file = join(dir, 'acks');
    this.fd = openSync(this.file, 'a');
    this.acks = 0;
    this.lastAck = 0;
  }

  // An ack is on the file before anybody counts it.
  acked(event, user) {
    if (this.fd === null) return;
    writeSync(this.fd, `${[event.chat, event.seq, event.message_id, event.client_msg_id, user].join(' ')}\n`);
    this.acks++;
    this.lastAck = now();
  }

  rows() {
    return readFileSync(this.file, 'utf8').trimEnd().split('\n').filter(Boolean).map((line) => {
      const [chat, seq, message_id, client_msg_id, user] = line.split(' ');
      return { chat, seq: Number(seq), message_id, client_msg_id, user };
    });
  }

  // The same as `parley store salvage --acks` reads it.
  plain(file) {
    writeFileSync(file, this.rows().map(({ chat, seq }) => `${chat} ${seq}\n`).join(''));
    return file;
  }

  close() {
    if (this.fd !== null) closeSync(this.fd);
    this.fd = null;
  }
}

// What is wrong with one chat's messages against the acks: a list of complaints, empty when all is well.
export function compareChat(chat, messages, last, rows) {
  const bad = [];
  messages.forEach((m, i) => {
    if (m.seq !== i + 1) bad.push(`${chat}: entry ${i + 1} of history has seq ${m.seq}`);
  });
  if (last !== messages.length) bad.push(`${chat}: head ${last}, but ${messages.length} entries`);
  const bySender = new Map();
  for (const m of messages) {
    if (!m.client_msg_id) continue;
    const key = `${m.sender} ${m.client_msg_id}`;
    if (bySender.has(key)) bad.push(`${chat}: ${key} is there twice, as ${bySender.get(key).seq} and ${m.seq}`);
    bySender.set(key, m);
  }
  for (const row of rows) {
    const m = bySender.get(`${row.user} ${row.client_msg_id}`);
    if (!m) bad.push(`${chat}: acked seq ${row.seq} (${row.user} ${row.client_msg_id}) is missing`);
    else if (m.seq !== row.seq || m.message_id !== row.message_id) {
      bad.push(`${chat}: ${row.client_msg_id} was acked as ${row.seq}/${row.message_id}, history says ${m.seq}/${m.message_id}`);
    }
  }
  return bad.slice(0, 10);
}

// What is wrong with a device's entries: chats maps each of the user's chats to its messages. The device was there from the start.
export function compareDevice(client, chats) {
  const who = `${client.user}/${client.device}`;
  const bad = [];
  const first = client.entries[0]?.inbox_seq;
  const per = new Map(Object.keys(chats).map((chat) => [chat, []]));
  client.entries.forEach((e, i) => {
    if (e.inbox_seq !== first + i) bad.push(`${who}: entry ${i} has inbox_seq ${e.inbox_seq}, expected ${first + i}`);
    if (!per.has(e.chat)) bad.push(`${who}: entry of ${e.chat}, which is not theirs`);
    per.get(e.chat)?.push(e);
  });
  for (const [chat, got] of per) {
    const want = chats[chat];
    for (let i = 0; i < Math.max(got.length, want.length); i++) {
      const same = got[i] && want[i] && got[i].seq === want[i].seq && got[i].message_id === want[i].message_id && got[i].body === want[i].body;
      if (!same) {
        bad.push(`${who}: ${chat}: entry ${i + 1} is seq ${got[i]?.seq}, history has ${want[i]?.seq} (${got.length} of ${want.length})`);
        break;
      }
    }
  }
  for (const fault of ['holes', 'repeats', 'resyncs']) if (client.seen[fault] > 0) bad.push(`${who}: ${client.seen[fault]} ${fault}`);
  return bad.slice(0, 10);
}

// Everything acked is in the history once, as a client that was never there before reads it. members: chat -> a user of it.
// Gives chat -> messages.
export async function checkHistory(cluster, rows, members) {
  const bad = [];
  const chats = {};
  const readers = new Map();
  const acked = new Set(rows.map((row) => row.chat));
  for (const chat of acked) assert.ok(members[chat], `an ack of ${chat}, which nobody made`);
  for (const [chat, user] of Object.entries(members)) {
    if (!readers.has(user)) {
      const reader = new Client(cluster, user, { device: 'fresh' });
      await reader.start();
      readers.set(user, reader);
    }
    const { messages, last } = await readers.get(user).history(chat);
    chats[chat] = messages;
    bad.push(...compareChat(chat, messages, last, rows.filter((row) => row.chat === chat)));
  }
  for (const reader of readers.values()) reader.stop();
  assert.ok(bad.length === 0, `${bad.slice(0, 20).join('\n')}\n${cluster.tails()}`);
  return chats;
}
