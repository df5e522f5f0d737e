#!/usr/bin/env node
// What every member of a group must receive when an IRC log is replayed, one line per message:
//   index TAB user id TAB display name TAB kind TAB body as hex
// The rules are those of client/irc.h, written a second time on purpose. usage: irc-list.mjs FILE
import { readFileSync } from 'node:fs';

const file = process.argv[2];
if (!file) {
  console.error('usage: irc-list.mjs FILE');
  process.exit(2);
}
const bytes = readFileSync(file);
new TextDecoder('utf-8', { fatal: true }).decode(bytes); // throws when it is not UTF-8

// latin1: one character per byte, so that regular expressions see bytes
const lines = bytes.toString('latin1').split('\n');
const escape = (nick) =>
  nick.replace(/[^A-Za-z0-9_-]/g, (c) => '.' + c.charCodeAt(0).toString(16).padStart(2, '0'));

const known = new Set(); // first nicks: each is a person, and their escaped form the id
const person = new Map(); // nick in use -> first nick of who uses it
const who = (nick) => {
  if (!person.has(nick)) {
    known.add(nick);
    person.set(nick, nick);
  }
  return person.get(nick);
};

const out = [];
lines.forEach((line, i) => {
  let m;
  if (line === '') return;
  if ((m = /^=== ([^ ]+) is now known as (.+)$/s.exec(line))) {
    const someone = who(m[1]);
    person.delete(m[1]);
    person.set(m[2], someone);
  } else if (line.startsWith('===')) {
    // a join, a part, a topic
  } else if ((m = /^\[\d\d:\d\d\] +<([^>]+)>(?: (.*))?$/s.exec(line))) {
    if (m[2]) out.push([who(m[1]), m[1], 'text', m[2]]);
  } else if ((m = /^\[\d\d:\d\d\] +\* ([^ ]+)(?: (.*))?$/s.exec(line))) {
    if (m[2]) out.push([who(m[1]), m[1], 'action', m[2]]);
  } else {
    console.error(`${file}:${i + 1}: no form of an IRC log`);
    process.exit(1);
  }
});

const text = (latin1) => Buffer.from(latin1, 'latin1').toString('utf8');
for (const [i, [first, nick, kind, body]] of out.entries()) {
  console.log([i, escape(first), text(nick), kind, Buffer.from(body, 'latin1').toString('hex')].join('\t'));
}
