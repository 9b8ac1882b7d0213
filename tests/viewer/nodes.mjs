// Real storage nodes, each with a directory and a port of its own.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

const BINARY = process.env.STORAGE_BIN;

/** The FNV-1a hash by which the ingest routes: the low bits are enough for two or four partitions. */
function partitionOf(service, partitions) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(service)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash % partitions;
}

async function startNode(data, partitions, peers) {
  if (!BINARY) throw new Error('STORAGE_BIN must name the storage binary');
  const args = ['--listen', '127.0.0.1:0', '--data', data, '--partitions', partitions.join(',')];
  if (peers.length > 0) args.push('--peers', peers.join(','));
  const child = spawn(BINARY, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let log = '';
  child.stderr.on('data', (text) => { log += text; });
  const url = await new Promise((resolve, reject) => {
    child.on('exit', (code) => reject(new Error(`storage ended with ${code}:\n${log}`)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const address = /\d+\.\d+\.\d+\.\d+:\d+/.exec(line);
      if (address) resolve(`http://${address[0]}`);
    });
  });
  return {
    url,
    log: () => log,
    stop: () => new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve();
      child.removeAllListeners('exit');
      child.on('exit', resolve);
      child.kill('SIGKILL');
      return undefined;
    }),
  };
}

/** Two nodes of two partitions each. The first asks the second for what it has itself not. */
export async function startCluster() {
  const data = await mkdtemp(path.join(tmpdir(), 'edgelog-viewer-data-'));
  const second = await startNode(path.join(data, 'two'), [2, 3], []);
  const first = await startNode(path.join(data, 'one'), [0, 1], [second.url]);
  return {
    url: first.url,
    second,
    append: (records) => append(first.url, second.url, records),
    close: async () => {
      await Promise.all([first.stop(), second.stop()]);
      await rm(data, { recursive: true, force: true });
    },
  };
}

/** Stores records as the ingest would: by service, each partition at its node. */
async function append(firstUrl, secondUrl, records) {
  const groups = groupByPartition(records);
  for (const [partition, group] of groups) {
    const url = partition < 2 ? firstUrl : secondUrl;
    for (let at = 0; at < group.length; at += 2000) {
      const body = group.slice(at, at + 2000).map((record) => `${JSON.stringify(record)}\n`).join('');
      const response = await fetch(`${url}/v1/storage?partition=${partition}`, { method: 'POST', headers: { 'Content-Type': 'application/x-ndjson' }, body });
      if (!response.ok) throw new Error(`storage answers ${response.status}: ${await response.text()}`);
    }
  }
}

function groupByPartition(records) {
  const groups = new Map();
  for (const record of records) {
    const partition = partitionOf(record.service, 4);
    if (!groups.has(partition)) groups.set(partition, []);
    groups.get(partition).push(record);
  }
  return groups;
}
