// The page: a login, a chat list, a conversation. All text goes in by textContent.
import { Parley, randomId } from './parley.js';

const $ = (id) => document.getElementById(id);
const PAGE = 50;
const AGAIN_MS = 2000; // pause before an incomplete list of chats is asked for again; then twice as long ...
const AGAIN_MAX_MS = 60000; // ... up to this

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const hue = (id) => `hue-${[...id].reduce((h, c) => (h * 31 + c.codePointAt(0)) >>> 0, 7) % 8}`;
const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
const day = (ms) => new Date(ms).toLocaleDateString([], { weekday: 'long', day: 'numeric', month: 'long' });
const when = (ms) => (new Date(ms).toDateString() === new Date().toDateString() ? clock(ms) : new Date(ms).toLocaleDateString());

// ---- what is known of one chat ----
class Chat {
  constructor(id) {
    this.id = id;
    this.kind = 'group';
    this.name = '';
    this.peer = '';
    this.entries = new Map(); // seq -> entry; what was loaded, without claim to be gapless below `loadedFrom`
    this.pending = []; // own messages not stored yet: {clientMsgId, body, ts, failed}
    this.last = null;
    this.order = 0; // inbox_seq of the last entry: orders the list
    this.readSeq = 0;
    this.unread = 0;
    this.unavailable = false; // the server could not tell more of it than that it is there
    this.loadedFrom = 0; // smallest seq of the gapless run that ends at the head; 0 = nothing loaded yet
    this.atStart = false;
    this.loading = false;
  }
  title() {
    return this.name || this.peer || this.id;
  }
  put(entry) {
    const fresh = !this.entries.has(entry.seq);
    this.entries.set(entry.seq, entry);
    if (!this.last || entry.seq > this.last.seq) this.last = entry;
    if (entry.kind === 'created' || entry.kind === 'added' || entry.kind === 'renamed') this.name = entry.name || this.name;
    if (entry.chat_kind) this.kind = entry.chat_kind;
    return fresh;
  }
}

const app = { parley: null, me: '', chats: new Map(), open: null, list: 0 };

function chatOf(id) {
  let chat = app.chats.get(id);
  if (!chat) app.chats.set(id, (chat = new Chat(id)));
  return chat;
}

// ---- login ----
function tokenUser(token) {
  try {
    const claims = JSON.parse(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')));
    return typeof claims.sub === 'string' ? claims.sub : '';
  } catch {
    return '';
  }
}

function showLogin(problem = '') {
  sessionStorage.removeItem('token');
  $('app').hidden = true;
  $('login').hidden = false;
  $('login-error').textContent = problem;
  $('token').focus();
}

function start(token) {
  sessionStorage.setItem('token', token);
  let device = sessionStorage.getItem('device'); // each tab is its own device
  if (!device) sessionStorage.setItem('device', (device = `web-${randomId()}`));
  const url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/v1/ws`;
  const parley = new Parley({ url, token, device });
  app.parley = parley;
  app.me = tokenUser(token);
  $('login').hidden = true;
  $('app').hidden = false;
  $('me').textContent = app.me;
  setAvatar($('me-avatar'), app.me);
  parley.addEventListener('state', (e) => showState(e.detail));
  parley.addEventListener('welcome', (e) => ($('me').textContent = e.detail.name || e.detail.user));
  parley.addEventListener('resync', (e) => resync(e.detail));
  parley.addEventListener('message', (e) => received(e.detail));
  parley.addEventListener('fatal', (e) => showLogin(`The server ended this session: ${e.detail}`));
  parley.connect();
  showChats();
  showConversation();
}

function showState(state) {
  $('state').textContent = state;
  $('state').classList.toggle('off', state !== 'online');
}

function setAvatar(node, id) {
  node.className = `avatar ${hue(id)}`;
  node.textContent = [...id.replace(/^[^\p{L}\p{N}]+/u, '')][0] || '?';
}

// ---- what the server says ----
function takeSummary(summary) {
  const chat = chatOf(summary.chat);
  chat.kind = summary.kind || 'group';
  chat.order = Math.max(chat.order, summary.inbox_seq || 0);
  chat.unavailable = summary.unavailable || false;
  if (chat.unavailable) return; // what was known of it stays
  const newer = chat.last && (!summary.last || chat.last.seq > summary.last.seq); // entries came since
  chat.name = (newer && chat.name) || summary.name || '';
  chat.peer = summary.peer || (chat.kind === 'direct' ? `${app.me} (notes)` : '');
  chat.readSeq = Math.max(chat.readSeq, summary.read_seq || 0);
  if (newer) return;
  chat.unread = summary.unread || 0;
  if (summary.last) chat.put(summary.last);
}

async function resync(frame) {
  app.chats.forEach((chat) => {
    chat.entries.clear();
    chat.loadedFrom = 0;
    chat.last = null;
    chat.order = chat.readSeq = 0;
    chat.unavailable = false;
  });
  const list = ++app.list; // a later resync ends this one
  await takeList(list, frame, takeSummary);
  for (let pause = AGAIN_MS; incomplete(list); pause = Math.min(2 * pause, AGAIN_MAX_MS)) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (list !== app.list) return;
    const listed = new Set();
    await takeList(list, await app.parley.chats(), (summary) => {
      listed.add(summary.chat);
      if (chatOf(summary.chat).unavailable) takeSummary(summary);
    });
    app.chats.forEach((chat) => (chat.unavailable &&= listed.has(chat.id)));
    if (app.open && app.open.entries.size < PAGE) loadOlder(app.open);
  }
}

const incomplete = (list) => list === app.list && [...app.chats.values()].some((chat) => chat.unavailable);

// This page of the list and all after it.
async function takeList(list, first, take) {
  for (let page = first; list === app.list; page = await app.parley.chats(page.chats.at(-1).inbox_seq)) {
    (page.chats || []).forEach(take);
    showChats();
    if (page === first && app.open) loadOlder(app.open);
    if (!page.has_more || !page.chats?.length) return;
  }
}

function received(entry) {
  const chat = chatOf(entry.chat);
  if (!chat.last && !chat.loadedFrom && entry.seq === 1) chat.atStart = true;
  const extendsRun = chat.last && entry.seq === chat.last.seq + 1;
  if (!extendsRun || !chat.loadedFrom) chat.loadedFrom = entry.seq;
  chat.order = entry.inbox_seq;
  chat.put(entry);
  if (entry.kind === 'text') {
    if (entry.sender === app.me) {
      chat.pending = chat.pending.filter((p) => p.clientMsgId !== entry.client_msg_id);
      chat.unread = 0;
    } else {
      chat.unread++;
      if (chat.kind === 'direct' || entry.chat.startsWith('d:')) {
        chat.kind = 'direct';
        chat.peer = chat.peer || entry.sender;
      }
    }
  }
  showChats();
  if (app.open === chat) showMessages(chat);
  markRead(chat);
}

function markRead(chat) {
  if (app.open !== chat || document.hidden || !chat.last || !nearBottom()) return;
  if (chat.last.seq > chat.readSeq) {
    chat.readSeq = chat.last.seq;
    chat.unread = 0;
    app.parley.read(chat.id, chat.readSeq).catch(() => {});
    showChats();
  }
}

// ---- the list ----
function describe(entry) {
  const who = entry.sender === app.me ? 'You' : entry.sender_name || entry.sender;
  const users = (entry.users || []).map((u) => (u === app.me ? 'you' : u)).join(', ');
  switch (entry.kind) {
    case 'text': return entry.body;
    case 'created': return `${who} started ${entry.name ? `“${entry.name}”` : 'the chat'}`;
    case 'added': return `${who} added ${users}`;
    case 'removed': return `${who} removed ${users}`;
    case 'left': return `${who} left`;
    case 'renamed': return `${who} named it “${entry.name}”`;
    default: return '';
  }
}

function chatRow(chat) {
  const item = make('li', app.open === chat ? 'open' : '');
  const button = make('button');
  button.type = 'button';
  button.dataset.chat = chat.id;
  const avatar = make('div');
  setAvatar(avatar, chat.title());
  const middle = make('div', 'middle');
  const last = chat.pending.at(-1);
  const own = chat.last && chat.last.kind === 'text' && chat.last.sender === app.me ? 'You: ' : '';
  middle.append(make('div', 'title', chat.title()), make('div', 'preview', last ? `You: ${last.body}` : chat.last ? own + describe(chat.last) : chat.unavailable ? 'not available now' : ''));
  const side = make('div', 'side');
  side.append(make('time', '', chat.last ? when(chat.last.ts_ms) : ''));
  if (chat.unread > 0) side.append(make('span', 'badge', chat.unread > 99 ? '99+' : String(chat.unread)));
  button.append(avatar, middle, side);
  button.onclick = () => openChat(chat);
  item.append(button);
  return item;
}

function showChats() {
  const sorted = [...app.chats.values()].sort((a, b) => b.order - a.order);
  $('chats').replaceChildren(...sorted.map(chatRow));
  const unread = sorted.reduce((n, chat) => n + chat.unread, 0);
  document.title = unread ? `(${unread}) parley` : 'parley';
}

// ---- the conversation ----
function nearBottom() {
  const box = $('messages');
  return box.scrollHeight - box.scrollTop - box.clientHeight < 80;
}

function bubble(chat, entry, pending) {
  const mine = pending || entry.sender === app.me;
  const node = make('div', `bubble${mine ? ' mine' : ''}${entry.content_type === 'text/x-irc-action' ? ' action' : ''}${entry.failed ? ' failed' : ''}`);
  if (!pending) node.dataset.seq = entry.seq;
  if (!mine && chat.kind !== 'direct') node.append(make('div', 'sender', entry.sender_name || entry.sender));
  const action = entry.content_type === 'text/x-irc-action' ? `${entry.sender_name || entry.sender} ` : '';
  node.append(make('div', 'body', action + entry.body));
  const mark = !mine ? '' : entry.failed ? ` ${entry.failed}` : pending && !entry.sent ? ' ◷' : ' ✓';
  const meta = make('div', 'meta', clock(entry.ts_ms) + mark);
  if (mine) meta.title = pending && !entry.sent ? 'not stored yet' : 'sent';
  node.append(meta);
  return node;
}

function showMessages(chat) {
  const box = $('messages');
  const stick = nearBottom();
  const fromBottom = box.scrollHeight - box.scrollTop;
  const nodes = [];
  let lastDay = '';
  for (const seq of [...chat.entries.keys()].filter((s) => s >= chat.loadedFrom).sort((a, b) => a - b)) {
    const entry = chat.entries.get(seq);
    if (day(entry.ts_ms) !== lastDay) nodes.push(make('div', 'day', (lastDay = day(entry.ts_ms))));
    if (entry.kind === 'text') {
      nodes.push(bubble(chat, entry, false));
    } else {
      const event = make('div', 'event', describe(entry));
      event.dataset.seq = seq;
      nodes.push(event);
    }
  }
  chat.pending.forEach((p) => nodes.push(bubble(chat, p, true)));
  box.replaceChildren(...nodes);
  box.scrollTop = stick ? box.scrollHeight : box.scrollHeight - fromBottom;
  $('newer').hidden = stick;
}

function showConversation() {
  const chat = app.open;
  $('conversation').classList.toggle('empty', !chat);
  $('app').classList.toggle('in-chat', Boolean(chat));
  if (!chat) return;
  $('chat-title').textContent = chat.title();
  $('chat-detail').textContent = chat.kind === 'direct' ? 'direct' : 'group';
  setAvatar($('chat-avatar'), chat.title());
  showMessages(chat);
}

function openChat(chat) {
  app.open = chat;
  showConversation();
  showChats();
  $('messages').scrollTop = $('messages').scrollHeight;
  if (!chat.atStart && chat.entries.size < PAGE) loadOlder(chat);
  markRead(chat);
  if (matchMedia('(min-width: 46rem)').matches) $('text').focus();
}

async function loadOlder(chat) {
  if (chat.loading || chat.atStart || !chat.last) return;
  chat.loading = true;
  try {
    const before = chat.loadedFrom || undefined;
    const page = await app.parley.history(chat.id, { before, limit: PAGE });
    const messages = page.messages || [];
    messages.forEach((m) => chat.put(m));
    if (messages.length) chat.loadedFrom = Math.min(chat.loadedFrom || Infinity, messages[0].seq);
    chat.atStart = !page.has_more;
  } finally {
    chat.loading = false;
  }
  if (app.open === chat) {
    showMessages(chat);
    markRead(chat);
  }
}

async function post(chat, body) {
  const pending = { clientMsgId: randomId(), body, ts_ms: Date.now(), failed: '' };
  chat.pending.push(pending);
  showMessages(chat);
  $('messages').scrollTop = $('messages').scrollHeight;
  showChats();
  try {
    await app.parley.send({ chat: chat.id, body, clientMsgId: pending.clientMsgId });
    pending.sent = true;
  } catch (error) {
    pending.failed = error.message;
  }
  if (app.open === chat) showMessages(chat);
}

async function startChat(text) {
  const names = text.split(/[\s,]+/).filter(Boolean);
  if (names.length === 0) return;
  const ack = names.length === 1
    ? await app.parley.createDirect(names[0])
    : await app.parley.createGroup(names.join(', '), names);
  const chat = chatOf(ack.chat);
  if (names.length === 1) {
    chat.kind = 'direct';
    chat.peer = names[0];
  }
  openChat(chat);
}

// ---- hands ----
$('login-form').onsubmit = (e) => {
  e.preventDefault();
  const token = $('token').value.trim();
  if (tokenUser(token)) start(token);
  else $('login-error').textContent = 'That is not a token.';
};
$('logout').onclick = () => {
  app.parley.close();
  sessionStorage.clear();
  location.hash = '';
  location.reload();
};
$('new-form').onsubmit = (e) => {
  e.preventDefault();
  $('new-error').textContent = '';
  startChat($('new-who').value).then(() => ($('new-who').value = ''), (error) => ($('new-error').textContent = error.message));
};
$('composer').onsubmit = (e) => {
  e.preventDefault();
  const text = $('text').value;
  if (!text.trim() || !app.open) return;
  $('text').value = '';
  fitText();
  post(app.open, text);
};
$('text').onkeydown = (e) => {
  if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
    e.preventDefault();
    $('composer').requestSubmit();
  }
};
function fitText() {
  $('text').rows = Math.min(8, $('text').value.split('\n').length);
}
$('text').oninput = fitText;
$('back').onclick = () => {
  app.open = null;
  showConversation();
  showChats();
};
$('newer').onclick = () => ($('messages').scrollTop = $('messages').scrollHeight);
$('messages').onscroll = () => {
  if (!app.open) return;
  if ($('messages').scrollTop < 200) loadOlder(app.open);
  if (nearBottom()) {
    $('newer').hidden = true;
    markRead(app.open);
  }
};
document.onvisibilitychange = () => {
  if (!app.parley) return;
  app.parley.setActive(!document.hidden);
  if (app.open) markRead(app.open);
};

const given = new URLSearchParams(location.hash.slice(1)).get('token');
if (given) {
  sessionStorage.removeItem('device');
  history.replaceState(null, '', location.pathname); // the token does not stay in the address bar
}
const token = given || sessionStorage.getItem('token');
if (token && tokenUser(token)) start(token);
else showLogin();
