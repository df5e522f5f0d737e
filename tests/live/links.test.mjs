// Who is no node of this cluster, or not the one it says it is, is refused and counted; the mesh goes on. And /metrics reads.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Client } from './lib/client.mjs';
import { Cluster, get, parley, run, until } from './lib/cluster.mjs';

let cluster;

before(async () => {
  cluster = await Cluster.up({ routers: 3, edges: 2 });
  await cluster.kill('router3'); // their places are for the strangers
  await cluster.kill('edge2');
});

after(async () => {
  await cluster?.stop({ quiet: true });
});

const metric = (text, name, labels) => {
  const found = new RegExp(`^${name}\\{[^}]*${labels}[^}]*\\} (\\d+)$`, 'gm');
  return [...text.matchAll(found)].reduce((sum, m) => sum + Number(m[1]), 0);
};

// A node with the cluster's config, changed as edit says, and keys of its own.
function stranger(name, edit, keyFiles) {
  const { role } = cluster.nodes[name];
  const dir = join(cluster.data, `stranger-${name}`);
  mkdirSync(join(dir, 'keys'), { recursive: true });
  for (const [from, to] of Object.entries(keyFiles)) copyFileSync(from, join(dir, 'keys', to));
  writeFileSync(join(dir, 'cluster.conf'), edit(readFileSync(join(cluster.data, 'cluster.conf'), 'utf8')));
  const log = openSync(join(cluster.data, 'log', `stranger-${name}.log`), 'w');
  const child = run(parley, [role, '--conf', join(dir, 'cluster.conf'), '--keys', join(dir, 'keys'), '--node', name, '--data', dir], {
    env: { ...process.env, PARLEY_EDGE_DRAIN_MS: '0' },
    stdio: ['ignore', log, log],
  });
  child.log = () => readFileSync(join(cluster.data, 'log', `stranger-${name}.log`), 'utf8');
  return child;
}

const keyOf = (conf, name) => new RegExp(`^    ${name}\\n(?:        .*\\n)*?        public_key = "(.*)"$`, 'm').exec(conf)[1];

// The config with the keys of two nodes exchanged.
const swapped = (conf, a, b) => {
  const other = { [keyOf(conf, a)]: keyOf(conf, b), [keyOf(conf, b)]: keyOf(conf, a) };
  return conf.replace(/public_key = "(.*)"/g, (line, key) => `public_key = "${other[key] ?? key}"`);
};

// by: who refuses and says so in his log. Counted there under labels.
async function refused(child, by, line, labels) {
  const says = () => by.some((name) => line.test(cluster.log(name)));
  await until(`${by} log ${line}`, says, 15000, () => `${child.log()}\n${cluster.tails()}`);
  await until(`${labels} is counted`, () => metric(cluster.metrics(), 'parley_link_refused_total', labels) > 0);
  child.kill('SIGTERM');
  const { code, signal } = await child.ended;
  assert.equal(code, 0, `the stranger ended with ${code ?? signal}: ${child.log()}`);
}

async function goesOn(text) {
  const ann = new Client(cluster, 'ann');
  const bob = new Client(cluster, 'bob');
  await Promise.all([ann.start(), bob.start()]);
  await ann.send({ to: 'bob' }, text);
  await until('bob has it', () => bob.entries.some((e) => e.body === text), 10000, () => cluster.tails());
  ann.stop();
  bob.stop();
}

test('a router with a key nobody knows is refused by the store', async () => {
  execFileSync(parley, ['init', '--data', join(cluster.data, 'other'), '--routers', '3', '--port', '1']);
  const other = readFileSync(join(cluster.data, 'other', 'cluster.conf'), 'utf8');
  const child = stranger('router3', (conf) => conf.replace(keyOf(conf, 'router3'), () => keyOf(other, 'router3')), {
    [join(cluster.data, 'other', 'keys', 'router3.key')]: 'router3.key',
  });
  await refused(child, ['store1'], /link_key_refused/, 'node="store1",reason="key"');
  await goesOn('after the wrong key');
});

test('a router with a right key under another node\'s name is refused by the store', async () => {
  const child = stranger('router3', (conf) => swapped(conf, 'router3', 'router1'), {
    [join(cluster.data, 'keys', 'router1.key')]: 'router3.key',
  });
  await refused(child, ['store1'], /hello_refused.*claimed=router3 key_of=router1/, 'node="store1",reason="name"');
  await goesOn('after the wrong name');
});

test('an edge with another edge\'s key is refused by the routers', async () => {
  const edit = (conf) => swapped(conf, 'edge2', 'edge1').replace(/port = \d+/, 'port = 0');
  const child = stranger('edge2', edit, { [join(cluster.data, 'keys', 'edge1.key')]: 'edge2.key' });
  await refused(child, ['router1', 'router2'], /hello_refused.*claimed=edge2 key_of=edge1/, 'node="router[12]",reason="name"');
  await goesOn('after the wrong edge');
});

test('a node whose key file does not go with its name does not start', async () => {
  const child = stranger('edge2', (conf) => conf, { [join(cluster.data, 'keys', 'edge1.key')]: 'edge2.key' });
  const { code } = await child.ended;
  assert.notEqual(code, 0);
  assert.match(child.log(), /key_refused.*edge2/);
});

test('/metrics is Prometheus text', async () => {
  const { status, head, body } = await get(cluster.port, '/metrics');
  assert.equal(status, 200);
  assert.match(head, /^content-type: text\/plain/im);
  assert.ok(body.endsWith('\n'));
  const type = {};
  const seen = new Set();
  for (const line of body.trimEnd().split('\n')) {
    const comment = /^# (HELP|TYPE) ([a-z_:][a-z0-9_:]*) (.+)$/.exec(line);
    if (comment?.[1] === 'TYPE') {
      assert.ok(!type[comment[2]], `typed twice: ${line}`);
      assert.match(comment[3], /^(counter|gauge|histogram)$/);
      type[comment[2]] = comment[3];
    }
    if (comment) continue;
    const sample = /^([a-z_:][a-z0-9_:]*)\{([a-z_]+="[^"\\\n]*"(?:,[a-z_]+="[^"\\\n]*")*)\} (-?\d+(?:\.\d+)?)$/.exec(line);
    assert.ok(sample, `no sample: ${line}`);
    const name = type[sample[1]] ? sample[1] : sample[1].replace(/_(bucket|sum|count)$/, '');
    assert.ok(type[name], `without a type before it: ${line}`);
    assert.ok(!seen.has(`${sample[1]}{${sample[2]}`), `twice: ${line}`);
    seen.add(`${sample[1]}{${sample[2]}`);
    if (type[name] === 'counter') assert.match(sample[1], /_total$/, line);
  }
  assert.ok(seen.size > 10);
});

test('a cluster with a stranger at its door ends well', async () => {
  await cluster.stop();
});
