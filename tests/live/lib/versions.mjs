// versions.mjs: binaries of other versions than the one under test, as scripts/versions.sh builds them, and what the source of
// the previous one says.
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { parley } from './cluster.mjs';

const NOT_HERE = 3;

// { binary }, or { skip: why this clone cannot have it }.
export function version(name) {
  const mode = /^(asan|tsan|release)$/.test(basename(dirname(parley))) ? basename(dirname(parley)) : 'release';
  const { status, stdout, stderr } = spawnSync('scripts/versions.sh', [name, `build/${mode}`], { encoding: 'utf8' });
  if (status === NOT_HERE) return { skip: stderr.trim() };
  if (status !== 0) throw new Error(`${name} is not built: ${stderr}`);
  return { binary: stdout.trim() };
}

// The commit of the previous version; null when this clone does not have it.
export function previousCommit() {
  const name = readFileSync('tests/live/previous', 'utf8').split('\n').find((line) => line && !line.startsWith('#')).split(/\s/)[0];
  const { status, stdout } = spawnSync('git', ['rev-parse', '-q', '--verify', `${name}^{commit}`], { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : null;
}

// A source file as it was then, or is now.
const source = (path, commit) => (commit ? execFileSync('git', ['show', `${commit}:${path}`], { encoding: 'utf8' }) : readFileSync(path, 'utf8'));

// What a version says of itself: { link_min, link, level, format, kinds: of log entries }.
export function numbers(commit) {
  const define = (path, name) => Number(new RegExp(`^#define ${name} (\\d+)`, 'm').exec(source(path, commit))[1]);
  const handlers = /^static store_fsm_handler \*handler_of[^]*?^}/m.exec(source('store/fsm.c', commit))[0];
  return {
    link_min: define('mesh/link_priv.h', 'LINK_VERSION_MIN'),
    link: define('mesh/link_priv.h', 'LINK_VERSION'),
    level: define('store/group.h', 'STORE_GROUP_LEVEL'),
    format: define('store/consensus_log.h', 'STORE_FORMAT'),
    kinds: [...handlers.matchAll(/case MESH__MSG__BODY_(\w+):/g)].map(([, kind]) => kind),
  };
}

// Of a schema: 'Message 3' or 'ENUM 3' -> { what: 'repeated string', name }; reserved numbers have what: 'reserved'.
export function schema(file, commit) {
  const found = new Map();
  const text = source(`proto/${file}.proto`, commit).replace(/\/\/.*$/gm, '');
  const scopes = [];
  for (const [, kind, scope, open, statement, close] of text.matchAll(/(?:\b(message|enum|oneof)\s+(\w+)\s*(\{))|([^;{}]+);|(\})/g)) {
    if (open) scopes.push(kind === 'oneof' ? scopes.at(-1) : scope);
    else if (close) scopes.pop();
    else {
      const owner = scopes.at(-1);
      const field = /^\s*(.*?)\s*\b(\w+)\s*=\s*(\d+)/.exec(statement);
      const gone = /^\s*reserved\s+([\d,\s]+)$/.exec(statement);
      if (owner && field) found.set(`${owner} ${field[3]}`, { what: field[1], name: field[2] });
      if (owner && gone) for (const n of gone[1].split(',')) found.set(`${owner} ${n.trim()}`, { what: 'reserved' });
    }
  }
  return found;
}
