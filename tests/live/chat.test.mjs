// Two people talk in the terminal while the edges die under them: every line is shown exactly once, at both.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Cluster, parley, run, sleep, until } from './lib/cluster.mjs';

let cluster;
const people = [];

before(async () => {
  cluster = await Cluster.up();
});

after(async () => {
  for (const person of people) person.child.kill('SIGKILL');
  await cluster?.stop({ quiet: true });
});

// `parley chat` with its input in our hand.
function sit(user, name) {
  const person = { name, out: '' };
  person.child = run(parley, ['chat', '--user', user, '--name', name, '--port', cluster.port, '--data', cluster.data, '--state', join(cluster.data, `${user}.state`)], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  for (const stream of [person.child.stdout, person.child.stderr]) stream.setEncoding('utf8').on('data', (text) => (person.out += text));
  person.say = (line) => person.child.stdin.write(`${line}\n`);
  person.shows = (text) => person.out.split('\n').filter((line) => line.includes(text)).length;
  people.push(person);
  return person;
}

const tell = () => `${people.map((p) => `--- ${p.name}\n${p.out}`).join('\n')}\n${cluster.tails()}`;

test('every line is shown once at each, though both edges are killed', async () => {
  const ann = sit('ann', 'Ann');
  const bob = sit('bob', 'Bob');
  const lines = [];
  await until('both are here', () => ann.out.includes('is here') && bob.out.includes('is here'), 15000, tell);
  ann.say('/open @bob');
  bob.say('/open @ann');
  const say = async (person, n) => {
    for (let i = 0; i < n; i++) {
      const line = `<${person.name}-${lines.length}>`;
      lines.push(line);
      person.say(`${line} and so on`);
      await sleep(30);
    }
  };
  const talk = () => Promise.all([say(ann, 10), say(bob, 10)]);
  await talk();
  for (const name of ['edge1', 'edge2']) {
    const said = lines.length;
    const talking = talk();
    await until('they are talking', () => lines.length > said + 6);
    await cluster.kill(name);
    await talking;
    cluster.start(name);
    await talk();
  }
  await cluster.kill('edge1'); // and both at once
  await cluster.kill('edge2');
  await talk();
  cluster.start('edge1');
  cluster.start('edge2');
  await until('both have every line', () => lines.every((line) => ann.shows(line) > 0 && bob.shows(line) > 0), 40000, tell);
  await sleep(500); // what is shown twice would be shown now
  for (const person of people) {
    for (const line of lines) assert.equal(person.shows(line), 1, `${person.name} shows ${line} ${person.shows(line)} times\n${tell()}`);
    const shown = (who) => [...person.out.matchAll(new RegExp(`<${who}-(\\d+)>`, 'g'))].map((m) => Number(m[1]));
    for (const who of ['Ann', 'Bob']) assert.deepEqual(shown(who), [...shown(who)].sort((a, b) => a - b), `${person.name} shows the lines of ${who} out of order\n${tell()}`);
  }
  assert.ok(people.some((p) => p.out.includes('online again')), tell());
  for (const person of people) person.child.stdin.end();
  for (const person of people) assert.equal((await person.child.ended).code, 0, tell());
});

test('a new start with the same state file shows what was missed, once', async () => {
  const file = (user) => join(cluster.data, `${user}.state`);
  const state = (user) => readFileSync(file(user), 'utf8').split(' ');
  const ahead = Date.now() + 3600e3; // its clock was ahead once: the number of its hello still goes up
  writeFileSync(file('bob'), [...state('bob').slice(0, 2), String(ahead).padStart(20, '0')].join(' ') + '\n');
  writeFileSync(file('ann'), state('ann').slice(0, 2).join(' ') + '\n'); // from before hellos had numbers
  const bob = sit('bob', 'Bob');
  await until('bob is here', () => bob.out.includes('is here'), 15000, tell);
  bob.say('/open @ann');
  bob.say('<missed>');
  await until('it is sent', () => bob.shows('<missed>') === 1, 15000, tell);
  bob.child.stdin.end();
  assert.equal((await bob.child.ended).code, 0, tell());
  const ann = sit('ann', 'Ann');
  await until('ann sees it', () => ann.shows(': <missed>') > 0, 15000, tell);
  await sleep(300); // a second time would come now
  const next = Number(state('bob')[2]); // by one, and by the milliseconds between start and hello
  assert.ok(next > ahead && next < ahead + 10000, `${next} after ${ahead}`);
  assert.ok(Math.abs(Number(state('ann')[2]) - Date.now()) < 60000, tell());
  const plain = ann.out.split('\n').filter((line) => /\] Bob: <missed>$/.test(line));
  assert.equal(plain.length, 1, tell());
  ann.child.stdin.end();
  assert.equal((await ann.child.ended).code, 0, tell());
});

test('the cluster ends well', async () => {
  await cluster.stop();
});
