// scripts/cluster.sh, as in the README: up, status, kill, start, down.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Client } from './lib/client.mjs';
import { Cluster, get, parley, until } from './lib/cluster.mjs';

let cluster; // its directory, port and tokens; the script runs the nodes

function script(...words) {
  const { status, stdout, stderr } = spawnSync('scripts/cluster.sh', [...words, '--data', cluster.data, '--port', String(cluster.port), '--no-build'], {
    encoding: 'utf8',
    env: { ...process.env, PARLEY: parley },
    timeout: 60000,
  });
  return { status, out: stdout + stderr };
}

before(async () => {
  cluster = await Cluster.make();
});

after(async () => {
  for (const name of cluster?.names() ?? []) {
    const file = join(cluster.data, 'run', `${name}.pid`);
    try {
      if (existsSync(file)) process.kill(Number(readFileSync(file, 'utf8')), 'SIGKILL');
    } catch {
      // it is gone
    }
  }
  await cluster?.stop({ quiet: true });
});

test('up says where it is and with which tokens; a killed edge comes back; down leaves nothing', async () => {
  const up = script('up');
  assert.equal(up.status, 0, up.out + cluster.tails());
  assert.match(up.out, /2 edges on port \d+, 2 routers, 1 store/);
  assert.ok(up.out.includes(`http://127.0.0.1:${cluster.port}/`), up.out);
  const token = /^ *ann +(\S+\.\S+\.\S+)$/m.exec(up.out)?.[1];
  assert.ok(token, up.out);
  assert.equal((await get(cluster.port, '/healthz')).status, 200);

  const ann = new Client(cluster, 'ann');
  ann.token = token;
  await ann.start();
  await ann.send({ to: 'bob' }, 'before');
  assert.equal(script('status').status, 0);

  const name = ann.node;
  assert.equal(script('kill', name).status, 0);
  await ann.send({ to: 'bob' }, 'after');
  const down1 = script('status');
  assert.notEqual(down1.status, 0);
  assert.match(down1.out, new RegExp(`^${name} +edge +down`, 'm'));
  assert.equal(script('start', name).status, 0);
  await until('all are up', () => script('status').status === 0, 20000, () => cluster.tails());
  ann.stop();

  const down = script('down');
  assert.equal(down.status, 0, down.out);
  for (const node of cluster.names()) {
    const pid = readFileSync(join(cluster.data, 'run', `${node}.pid`), 'utf8').trim();
    assert.ok(!existsSync(`/proc/${pid}`), `${node} still runs`);
  }
});
