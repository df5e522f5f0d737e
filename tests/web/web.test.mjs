// The page in real Chromium, against a real `parley serve`. PARLEY names the binary.
import assert from 'node:assert/strict';
import { spawn, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';

const parley = process.env.PARLEY ?? 'build/release/parley';
const data = mkdtempSync(join(tmpdir(), 'parley-web-'));
let server, browser, base;

const freePort = () =>
  new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });

async function until(what, check, ms = 15000) {
  const end = Date.now() + ms;
  for (;;) {
    if (await check()) return;
    assert.ok(Date.now() < end, `not in ${ms} ms: ${what}`);
    await new Promise((r) => setTimeout(r, 50));
  }
}

const token = (user, name) => execFileSync(parley, ['token', user, '--name', name, '--data', data], { encoding: 'utf8' }).trim();

async function login(user, name, options = {}, prepare = async () => {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await prepare(page);
  page.problems = [];
  page.on('pageerror', (e) => page.problems.push(String(e)));
  await page.goto(`${base}/#token=${token(user, name)}`);
  await page.getByText('online', { exact: true }).waitFor();
  return { context, page };
}

async function startChat(page, who) {
  await page.fill('#new-who', who);
  await page.press('#new-who', 'Enter');
  await page.locator('#composer').waitFor();
}
async function say(page, text) {
  await page.fill('#text', text);
  await page.press('#text', 'Enter');
}
const bodies = (page) => page.locator('.bubble .body').allTextContents();

before(async () => {
  const port = await freePort();
  base = `http://127.0.0.1:${port}`;
  server = spawn(parley, ['serve', '--data', data, '--port', String(port)], { stdio: ['ignore', 'ignore', 'inherit'] });
  await until('the page answers', async () => {
    assert.equal(server.exitCode, null, 'parley serve ended');
    return fetch(base).then((r) => r.ok, () => false);
  });
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
});

after(async () => {
  await browser?.close();
  server?.kill('SIGTERM');
  rmSync(data, { recursive: true, force: true });
});

test('two browsers talk: optimistic echo, sent mark, unread badge', async () => {
  const ann = await login('ann', 'Ann');
  const bob = await login('bob', 'Bob');
  await startChat(ann.page, 'bob');
  await say(ann.page, 'hello bob');
  assert.deepEqual(await bodies(ann.page), ['hello bob'], 'echo before the server answered');
  await ann.page.locator('.bubble .meta', { hasText: '✓' }).waitFor();
  await bob.page.locator('.badge', { hasText: '1' }).waitFor();
  await bob.page.locator('.chats button').first().click();
  await bob.page.getByText('hello bob', { exact: true }).last().waitFor();
  await say(bob.page, 'hello ann');
  await ann.page.locator('.bubble', { hasText: 'hello ann' }).waitFor();
  await until('badge cleared by reading', async () => (await bob.page.locator('.badge').count()) === 0);
  assert.deepEqual([...ann.page.problems, ...bob.page.problems], []);
  await ann.context.close();
  await bob.context.close();
});

test('one goes offline, comes back, and has everything once', async () => {
  const ann = await login('carol', 'Carol');
  const bob = await login('dave', 'Dave');
  await startChat(ann.page, 'dave');
  await say(ann.page, 'before');
  await bob.page.locator('.chats button').first().click();
  await bob.page.locator('.bubble', { hasText: 'before' }).waitFor();
  await bob.context.setOffline(true);
  await bob.page.getByText('offline', { exact: true }).waitFor();
  for (let i = 1; i <= 20; i++) await say(ann.page, `while away ${i}`);
  await say(bob.page, 'written offline');
  await bob.context.setOffline(false);
  const want = ['before', ...Array.from({ length: 20 }, (_, i) => `while away ${i + 1}`), 'written offline'].sort();
  await until('everything is there', async () => (await bodies(bob.page)).length >= want.length);
  await bob.page.locator('.bubble.mine .meta', { hasText: '✓' }).waitFor();
  await until('and at the other side', async () => (await bodies(ann.page)).length >= want.length);
  assert.deepEqual((await bodies(bob.page)).sort(), want);
  assert.deepEqual((await bodies(ann.page)).sort(), want);
  const order = (await bodies(bob.page)).filter((b) => b.startsWith('while away'));
  assert.deepEqual(order, Array.from({ length: 20 }, (_, i) => `while away ${i + 1}`));
  await ann.context.close();
  await bob.context.close();
});

test('a chat whose part of the server is silent is listed, and filled in later', async () => {
  const ann = await login('ida', 'Ida');
  await startChat(ann.page, 'jo');
  await say(ann.page, 'first');
  await ann.page.locator('.bubble .meta', { hasText: '✓' }).waitFor();
  let silent = true;
  let asked = 0;
  const mute = ({ chat, kind, inbox_seq }) => ({ chat, kind, inbox_seq, unavailable: true });
  const jo = await login('jo', 'Jo', {}, (page) =>
    page.routeWebSocket(/v1\/ws/, (socket) => {
      const server = socket.connectToServer();
      server.onMessage((text) => {
        const frames = text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
        for (const frame of frames) {
          asked += frame.type === 'chats';
          if (silent && frame.chats) frame.chats = frame.chats.map(mute);
        }
        socket.send(frames.map((frame) => JSON.stringify(frame)).join('\n'));
      });
    }));
  const row = jo.page.locator('.chats button');
  await row.getByText('not available now').waitFor();
  await until('it asks again', () => asked > 0);
  assert.equal(await row.getByText('not available now').count(), 1);
  await row.click(); // nothing to show yet, and nothing breaks
  silent = false;
  await jo.page.locator('.bubble', { hasText: 'first' }).waitFor();
  assert.equal(await row.getByText('not available now').count(), 0);
  assert.equal(await row.getByText('ida', { exact: true }).count(), 1);
  const was = asked;
  await say(ann.page, 'second');
  await jo.page.locator('.bubble', { hasText: 'second' }).waitFor();
  assert.equal(asked, was, 'it asks no more');
  assert.deepEqual([...ann.page.problems, ...jo.page.problems], []);
  await ann.context.close();
  await jo.context.close();
});

test('history loads on scroll, and a reload shows the same', async () => {
  const { context, page } = await login('erin', 'Erin');
  await startChat(page, 'erin');
  for (let i = 1; i <= 120; i++) await say(page, `note ${i}`);
  await until('all stored', async () => (await page.locator('.bubble .meta', { hasText: '✓' }).count()) === 120, 30000);
  await page.reload();
  await page.locator('.chats button').first().click();
  await page.locator('.bubble', { hasText: 'note 120' }).waitFor();
  assert.ok((await bodies(page)).length < 120, 'only a page at first');
  await until('older pages come by scrolling', async () => {
    await page.locator('#messages').evaluate((box) => (box.scrollTop = 0));
    return (await bodies(page)).length === 120;
  });
  assert.deepEqual(await bodies(page), Array.from({ length: 120 }, (_, i) => `note ${i + 1}`));
  assert.deepEqual(page.problems, []);
  await context.close();
});

test('hostile text stays text', async () => {
  const { context, page } = await login('mallory', 'Mallory');
  await startChat(page, 'mallory');
  const text = '<img src=x onerror="document.title=1"> <script>alert(1)</script> & "quotes" \u202e reversed';
  await say(page, text);
  await page.locator('.bubble .meta', { hasText: '✓' }).waitFor();
  assert.deepEqual(await bodies(page), [text]);
  assert.equal(await page.locator('.bubble img').count(), 0);
  assert.equal(await page.title(), 'parley');
  await context.close();
});

test('a phone shows one thing at a time, without sideways scrolling', async () => {
  const { context, page } = await login('frank', 'Frank', { viewport: { width: 360, height: 640 }, hasTouch: true, isMobile: true });
  await startChat(page, 'grace heidi');
  await say(page, 'a'.repeat(300));
  await page.locator('.bubble .meta', { hasText: '✓' }).waitFor();
  assert.equal(await page.locator('.sidebar').isVisible(), false);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
  assert.equal(wide, false);
  await page.locator('#back').click();
  assert.equal(await page.locator('.sidebar').isVisible(), true);
  assert.equal(await page.locator('#conversation').isVisible(), false);
  await context.close();
});
