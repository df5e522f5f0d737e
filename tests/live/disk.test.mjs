// The store's disk: a watermark that refuses writes in time, a disk that is really full, and one that fails.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Client } from './lib/client.mjs';
import { Cluster, now, sleep, until } from './lib/cluster.mjs';
import { Recorder, checkHistory } from './lib/recorder.mjs';

const DISK_MIB = 48;
const mounts = [];
process.on('exit', () => {
  for (const dir of mounts.splice(0)) unmount(dir);
});

// A small disk of its own; needs root.
function mount() {
  const dir = mkdtempSync(join(tmpdir(), 'parley-disk-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'parley-test', dir]);
  mounts.push(dir);
  return dir;
}

function unmount(dir) {
  execFileSync('umount', ['-l', dir]);
  rmSync(dir, { recursive: true });
}

const freeMib = (dir) => {
  const { bavail, bsize } = statfsSync(dir);
  return (bavail * bsize) / 2 ** 20;
};

// Write a file until that much is left, 0: until nothing fits.
function fill(dir, left) {
  const fd = openSync(join(dir, 'filler'), 'a');
  const piece = Buffer.alloc(left === 0 ? 4096 : 65536, 0x55);
  try {
    while (left === 0 || freeMib(dir) > left) writeSync(fd, piece);
  } catch (error) {
    assert.equal(error.code, 'ENOSPC');
  }
  closeSync(fd);
}

const empty = (dir) => rmSync(join(dir, 'filler'), { force: true });

// ann talks to bob; every ack is recorded, every refusal kept.
class Talk {
  static async start(cluster) {
    const talk = new Talk();
    talk.cluster = cluster;
    talk.recorder = new Recorder(cluster.data);
    talk.ann = new Client(cluster, 'ann', { recorder: talk.recorder });
    talk.bob = new Client(cluster, 'bob');
    await Promise.all([talk.ann.start(), talk.bob.start()]);
    talk.n = 0;
    return talk;
  }

  // Resolves with the chat, or fails with the error's frame in `event`.
  say(size = 100) {
    const n = this.n++;
    return this.ann.send({ to: 'bob' }, `${n} ${'x'.repeat(size)}`, `ann-${n}`).then((ack) => ((this.chat = ack.chat), ack));
  }

  async says(n, size) {
    for (let i = 0; i < n; i++) await this.say(size);
  }

  // What a send is told when the disk has no room. It may take a while until the store knows.
  async refusal() {
    let told;
    await until('a send is refused', () => this.say(2000).then(() => false, (error) => ((told = error.event), true)), 20000, () => this.cluster.tail('store1'));
    return told;
  }

  async goesOn() {
    await until('a send is taken', () => this.say().then(() => true, (error) => (assert.ok(error.event, error), false)), 30000, () => this.cluster.tail('store1'));
    await this.says(20);
    await this.allThere();
  }

  async allThere() {
    const rows = this.recorder.rows();
    await checkHistory(this.cluster, rows, { [this.chat]: 'bob' });
    await until('bob has every ack', () => rows.every(({ seq }) => this.bob.entries.some((e) => e.seq === seq)), 15000, () => this.cluster.tails());
    this.bob.entries.forEach((e, i) => assert.equal(e.seq, i + 1, 'bob\'s entries'));
  }

  stop() {
    this.ann?.stop();
    this.bob?.stop();
    this.recorder?.close();
  }
}

function scene(env) {
  const s = {};
  before(async () => {
    s.disk = mount();
    s.cluster = await Cluster.up({ edges: 1, routers: 1, env: { store: { STORE_PATH: s.disk, STORE_WRITE_BUFFER_MIB: 2, ...env } } });
    s.talk = await Talk.start(s.cluster);
    await s.talk.says(20);
  });
  after(async () => {
    s.talk?.stop();
    await s.cluster?.stop({ quiet: true });
    for (const dir of mounts.splice(0)) unmount(dir);
  });
  return s;
}

describe('with a free-space watermark', () => {
  const s = scene({ STORE_FREE_MIN_MIB: 24 });

  test('below it writes are refused with disk_full while reads go on; above it writes go on', async () => {
    const { disk, cluster, talk } = s;
    fill(disk, 20);
    const told = await talk.refusal();
    assert.equal(told.name, 'disk_full');
    assert.equal(told.code, 403);
    assert.equal(told.retry, 'later');
    assert.ok(told.after_ms >= 1000, JSON.stringify(told));
    assert.match(cluster.log('store1'), /event=space_low .*store.free_min_mib=24 writes=refused/);
    await assert.rejects(talk.say(), (error) => error.event.name === 'disk_full', 'and the next one as well');
    const { messages } = await talk.bob.history(talk.chat);
    assert.equal(messages.length, talk.recorder.acks);
    const late = new Client(cluster, 'bob', { device: 'late' }); // attaching writes a row: refused or not, nothing breaks
    late.start().catch(() => {});
    assert.ok(((await talk.ann.request('chats')).chats ?? []).length === 1);
    empty(disk);
    await talk.goesOn();
    await late.ready();
    late.stop();
    assert.match(cluster.log('store1'), /event=space_back .*writes=taken/);
    assert.ok(freeMib(disk) > 24);
    talk.stop();
    await cluster.stop();
  });
});

describe('without one', () => {
  const s = scene({ STORE_FREE_MIN_MIB: 0 });

  test('when the disk is full acks stop at once and the log says so; with space back it goes on, nothing acked is lost', async () => {
    const { disk, cluster, talk } = s;
    fill(disk, 0);
    const told = await talk.refusal();
    console.log(`# ${talk.recorder.acks} acks before the disk was full`);
    assert.ok(['disk_full', 'unavailable'].includes(told.name), JSON.stringify(told));
    await until('the log says so', () => /event=disk_full /.test(cluster.log('store1')), 10000, () => cluster.tail('store1'));
    const acks = talk.recorder.acks;
    await assert.rejects(talk.say(), (error) => error.event.name === 'disk_full');
    await sleep(1500); // it looks again, and there is still nothing
    await assert.rejects(talk.say(), (error) => error.event.name === 'disk_full');
    assert.equal(talk.recorder.acks, acks, 'acked while the disk was full');
    empty(disk);
    await talk.goesOn();
    await cluster.kill('store1'); // what the files say, not what the process remembers
    cluster.start('store1');
    await talk.goesOn();
    talk.stop();
    await cluster.stop();
  });
});

// The store under strace, which does something to its fdatasync. The leak checker does not work under ptrace.
async function traced(inject) {
  const cluster = await Cluster.make({ edges: 1, routers: 1 });
  cluster.env.store = { ASAN_OPTIONS: `${process.env.ASAN_OPTIONS ?? ''}:detect_leaks=0` };
  cluster.wrap.store1 = ['strace', '-f', '-q', '-o', '/dev/null', '-e', 'trace=fdatasync', '-e', `inject=fdatasync:${inject}`];
  for (const name of cluster.names()) cluster.start(name);
  return cluster;
}

describe('a slow disk', () => {
  const SYNC_MS = 150;
  let cluster, talk;
  after(async () => {
    talk?.stop();
    await cluster?.stop({ quiet: true });
  });

  test('no ack comes before the sync; many sends share one', async () => {
    cluster = await traced(`delay_enter=${SYNC_MS * 1000}`);
    await cluster.wait();
    talk = await Talk.start(cluster);
    for (let i = 0; i < 5; i++) {
      const begin = now();
      await talk.say();
      assert.ok(now() - begin >= SYNC_MS, `acked after ${now() - begin} ms, a sync takes ${SYNC_MS}`);
    }
    const begin = now();
    await Promise.all(Array.from({ length: 50 }, () => talk.say()));
    const took = now() - begin;
    console.log(`# 50 sends at once with a sync of ${SYNC_MS} ms: all acked after ${Math.round(took)} ms`);
    assert.ok(took >= SYNC_MS && took < 25 * SYNC_MS, `${took} ms`);
    await talk.allThere();
    talk.stop();
    await cluster.stop();
  });
});

describe('a disk that fails', () => {
  let cluster, talk;
  after(async () => {
    talk?.stop();
    await cluster?.stop({ quiet: true });
  });

  test('after a failed sync nothing is acked, the store ends and says why; a new start has everything acked', async () => {
    cluster = await traced('error=EIO:when=60+');
    await cluster.wait();
    talk = await Talk.start(cluster);
    let failed = false;
    const gone = cluster.gone('store1', 40000).then((how) => ((failed = true), how));
    let acks = 0;
    const talking = (async () => {
      while (!failed) {
        await talk.say();
        acks++;
        if (acks > 500) throw new Error('no sync has failed');
      }
    })();
    talking.catch(() => {});
    const { code, signal } = await gone;
    console.log(`# ${acks} acks before the failed sync`);
    assert.ok(code > 0, `ended with ${code ?? signal}`);
    assert.match(cluster.log('store1'), /level=error .*event=disk_failed .*error=/);
    const acked = talk.recorder.acks;
    await sleep(300);
    assert.equal(talk.recorder.acks, acked, 'acked by a store that is gone');
    cluster.wrap = {};
    cluster.start('store1');
    await talking; // the send that was under way is answered now
    await talk.says(10);
    await talk.allThere();
    talk.stop();
    await cluster.stop();
  });
});
