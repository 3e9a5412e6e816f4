/**
 * A program that takes the place of plakar where tests need `plakar at LOCATION server`: it serves a local store with
 * the quirks of kloset-format 2.3, takes writes from anyone as the real one does, and writes down how it was called.
 */
import { chmodSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Cleanup, temporaryFolder } from './fixtures.ts';

const PROGRAM = `
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const words = process.argv.slice(2);
fs.appendFileSync(CALLS, JSON.stringify({ words, passphrase: process.env.PLAKAR_PASSPHRASE }) + '\\n');
const location = words[words.indexOf('at') + 1];
if (location.includes('no-such')) {
  console.error("plakar: failed to open the repository at " + location + ": backend does not exist");
  console.error('To specify an alternative repository, please use "plakar at <location> <command>".');
  process.exit(1);
}
const root = location.replace(/^[a-z0-9+-]+:\\/\\//, '');
const [host, port] = words[words.indexOf('-listen') + 1].split(':');
let primed = false;
const fail = (response, status, text) => response.writeHead(status).end(text + '\\n');
const list = (kind) => fs.readdirSync(path.join(root, kind)).flatMap((bucket) => fs.readdirSync(path.join(root, kind, bucket)));
http.createServer((request, response) => {
  if (request.method === 'PUT') {
    fs.writeFileSync(path.join(root, 'written'), request.url);
    return void response.end();
  }
  const [, kind, id] = /^\\/resources\\/([^/]*)(?:\\/([^/]*))?$/.exec(request.url) ?? [];
  if (kind === undefined) {
    primed = true;
    return void response.end(fs.readFileSync(path.join(root, 'CONFIG')));
  }
  if (!primed) return void fail(response, 500, 'open : no such file or directory');
  if (id === undefined) return void response.end(JSON.stringify(list(kind)));
  let resource;
  try {
    resource = fs.readFileSync(path.join(root, kind, id.slice(0, 2), id));
  } catch {
    return void fail(response, 500, 'packfile not found');
  }
  const [, from, to] = /^bytes=(\\d+)-(\\d+)$/.exec(request.headers.range ?? '') ?? [];
  response.end(from === undefined ? resource : resource.subarray(Number(from), Number(to)));
}).listen(Number(port), host, () => console.log('info: listening on http://' + host + ':' + port));
`;

export interface StandInPlakar {
  /** The program. Its path occurs in the command line of every process that runs it. */
  readonly command: string;
  /** How it was called so far. */
  calls(): { readonly words: readonly string[]; readonly passphrase?: string }[];
  /** Processes of this machine that run it, or were started with it in their words. */
  processes(): number[];
}

export function standInPlakar(cleanup: Cleanup): StandInPlakar {
  const folder = temporaryFolder(cleanup);
  const command = join(folder, 'plakar');
  const calls = join(folder, 'calls');
  writeFileSync(calls, '');
  writeFileSync(command, `#!${process.execPath}\nconst CALLS = ${JSON.stringify(calls)};\n${PROGRAM}`);
  chmodSync(command, 0o755);
  const lines = () => readFileSync(calls, 'utf8').split('\n').filter(Boolean);
  return {
    command,
    calls: () => lines().map((line) => JSON.parse(line)),
    processes: () => processesWith(command),
  };
}

/** Ids of the processes that have `text` in their command line, children of the caller or not. */
export function processesWith(text: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        return readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(text);
      } catch {
        return false; // It has ended meanwhile.
      }
    })
    .map(Number);
}
