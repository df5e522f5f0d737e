// hosts.mjs: a cluster whose nodes are each on a host of their own: a network namespace with one address, all on one bridge.
// This side of the bridge (clients, the operator) is the namespace the test runs in. Needs root, iproute2 and a kernel that lets
// this user make namespaces. What is made bears the number of the process that made it: p.PID.NODE, pbPID, pvPIDxN. It goes when the process ends, and
// what a killed one left behind goes at the next start.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Cluster } from './cluster.mjs';

const PORT = 7700; // of every store and router: each has an address of its own
const HERE = 254; // last number of this side's address

const pid = process.pid;
const namespace = (node) => `p.${pid}.${node}`;
const bridge = `pb${pid}`;

function ip(...words) {
  return execFileSync('ip', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

function quietly(...words) { // to take away what may be gone
  try {
    return ip(...words);
  } catch {
    return '';
  }
}

function alive(number) {
  try {
    return readFileSync(`/proc/${number}/cmdline`, 'utf8').includes('node');
  } catch {
    return false;
  }
}

function namespaces() {
  return quietly('netns', 'list').split('\n').map((line) => line.split(' ')[0]).filter((name) => /^p\.\d+\./.test(name));
}

function bridges() {
  return [...quietly('-o', 'link', 'show', 'type', 'bridge').matchAll(/^\d+: (pb\d+):/gm)].map((match) => match[1]);
}

// Takes away all that is of a process for which it says yes. A namespace's end takes its veth with it.
function sweep(ofWhom) {
  for (const name of namespaces().filter((each) => ofWhom(Number(each.split('.')[1])))) {
    for (const left of quietly('netns', 'pids', name).split('\n').filter(Boolean)) {
      try {
        process.kill(Number(left), 'SIGKILL');
      } catch {
        // it ended meanwhile
      }
    }
    quietly('netns', 'del', name);
  }
  for (const name of bridges().filter((each) => ofWhom(Number(each.slice(2))))) quietly('link', 'del', name);
}

// Why this machine does not allow what is needed here; null: it does.
export function whyNoHosts() {
  const name = namespace('try');
  try {
    ip('netns', 'add', name);
    ip('netns', 'exec', name, 'true');
    ip('-n', name, 'link', 'set', 'lo', 'up');
    ip('-n', name, 'route', 'add', 'blackhole', '10.77.255.255/32');
    ip('link', 'add', bridge, 'type', 'bridge');
    return null;
  } catch (error) {
    return `no network namespaces here: ${String(error.stderr || error.message).trim().split('\n')[0]}`;
  } finally {
    quietly('netns', 'del', name);
    quietly('link', 'del', bridge);
  }
}

export class Hosts extends Cluster {
  static async make(options) {
    sweep((number) => !alive(number));
    const c = await super.make(options);
    c.cuts = new Map(); // 'from>to' -> how many faults want it
    c.turn = 0;
    process.on('exit', () => c.takeAway());
    c.lay();
    c.env.edge = { EDGE_HOST: '0.0.0.0', ...c.env.edge };
    return c;
  }

  // The bridge, and a namespace for each node with its end of a cable in it.
  lay() {
    const taken = ip('-4', '-o', 'addr');
    let net;
    do net = `10.77.${1 + Math.floor(Math.random() * 250)}`; while (taken.includes(`${net}.`));
    ip('link', 'add', bridge, 'type', 'bridge', 'forward_delay', '0', 'stp_state', '0');
    ip('addr', 'add', `${net}.${HERE}/24`, 'dev', bridge);
    ip('link', 'set', bridge, 'up');
    const file = join(this.data, 'cluster.conf');
    let conf = readFileSync(file, 'utf8');
    this.names().forEach((name, i) => {
      const [ns, cable] = [namespace(name), `pv${pid}x${i}`];
      const node = this.nodes[name];
      node.address = `${net}.${i + 1}`;
      ip('netns', 'add', ns);
      ip('link', 'add', cable, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', ns);
      ip('link', 'set', cable, 'master', bridge, 'up');
      ip('-n', ns, 'addr', 'add', `${node.address}/24`, 'dev', 'eth0');
      ip('-n', ns, 'link', 'set', 'lo', 'up');
      ip('-n', ns, 'link', 'set', 'eth0', 'up');
      this.wrap[name] = ['ip', 'netns', 'exec', ns];
      conf = conf.replace(new RegExp(`(\\n    ${name}\\n(?:        .*\\n)*?        endpoint = )"[^"]*"`), `$1"tcp://${node.address}:${PORT}"`);
    });
    writeFileSync(file, conf);
  }

  // An edge, each time the next one, as a balancer that knows nothing of them would choose.
  address() {
    const edges = this.names('edge');
    return { host: this.nodes[edges[this.turn++ % edges.length]].address, port: this.port };
  }

  // Nothing leaves `from` for `to` any more; the other way is open. Each cut wants its mend.
  cut(from, to) {
    this.route(from, to, 1, 'add');
  }

  mend(from, to) {
    this.route(from, to, -1, 'del');
  }

  route(from, to, by, verb) {
    const key = `${from}>${to}`;
    const before = this.cuts.get(key) ?? 0;
    this.cuts.set(key, before + by);
    if (before + Math.max(by, 0) === 1) ip('-n', namespace(from), 'route', verb, 'blackhole', `${this.nodes[to].address}/32`);
  }

  takeAway() {
    sweep((number) => number === pid);
  }

  async stop(options) {
    try {
      await super.stop(options);
    } finally {
      this.takeAway();
    }
  }
}
