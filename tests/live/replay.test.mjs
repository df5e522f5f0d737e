// Real conversations through the whole mesh, checked by `parley replay` against a list that another program made.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Cluster, parley, run, sleep } from './lib/cluster.mjs';

const dir = 'tests/data/ubuntu-irc';
const file = join(dir, readdirSync(dir).filter((name) => name.endsWith('.txt')).sort()[0]);
let cluster;

before(async () => {
  cluster = await Cluster.up();
});

after(async () => {
  await cluster?.stop({ quiet: true });
});

// Plays the file; meanwhile(child) is what else happens. Gives the last line.
async function replay(expect, meanwhile = async () => {}) {
  const child = run(parley, ['replay', file, '--port', cluster.port, '--data', cluster.data, '--expect', expect, '--patience', '30'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (err += text));
  await meanwhile(child);
  const how = await child.ended;
  console.log(`# ${err.trimEnd().split('\n').join('\n# ')}`);
  return { ...how, last: out.trimEnd().split('\n').at(-1), err };
}

test('every line of a log reaches every member once, in order, byte for byte, while an edge and a router are killed', async () => {
  const list = execFileSync(process.execPath, ['scripts/irc-list.mjs', file], { encoding: 'utf8', maxBuffer: 1 << 26 });
  const expect = join(cluster.data, 'expect');
  writeFileSync(expect, list);
  const lines = list.trimEnd().split('\n').length;
  const { code, last, err } = await replay(expect, async (child) => {
    for (const name of ['edge1', 'router1']) {
      await sleep(2500);
      if (child.exitCode !== null) return;
      await cluster.kill(name);
      await sleep(300);
      cluster.start(name);
      console.log(`# ${name} killed and started`);
    }
  });
  console.log(`# ${last}`);
  assert.match(last, new RegExp(`^replayed ${lines} lines, [1-9]\\d* deliveries, 0 missing, 0 doubled, 0 reordered$`), `${err}${cluster.tails()}`);
  assert.equal(code, 0);
});

test('a list that says something else makes it fail', async () => {
  const list = execFileSync(process.execPath, ['scripts/irc-list.mjs', file], { encoding: 'utf8', maxBuffer: 1 << 26 }).trimEnd().split('\n');
  const expect = join(cluster.data, 'expect-less');
  writeFileSync(expect, `${list.slice(0, -1).join('\n')}\n`);
  const { code } = await replay(expect);
  assert.notEqual(code, 0);
});

test('the cluster ends well', async () => {
  await cluster.stop();
});
