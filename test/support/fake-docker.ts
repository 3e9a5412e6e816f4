/**
 * A stand-in for docker's command line that does what `pg --docker` asks for without an engine: `run` makes a mount
 * namespace with the binds, becomes the user and runs the program of this machine; `exec` enters it; `kill` and `rm` end it.
 * Every call is written to a log, a line of JSON each.
 */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Cleanup, temporaryFolder } from './fixtures.ts';
import { postgresUser } from './postgres.ts';
import { findPostgres15 } from './requires.ts';

export interface FakeDocker {
  /** To be put before PATH. */
  readonly folder: string;
  /** The arguments of every call so far. */
  calls(): readonly (readonly string[])[];
}

export function fakeDocker(cleanup: Cleanup): FakeDocker {
  const folder = temporaryFolder(cleanup);
  const log = join(folder, 'calls');
  const state = join(folder, 'state');
  const home = join(folder, 'home');
  for (const path of [state, home]) mkdirSync(path);
  chmodSync(folder, 0o755);
  writeFileSync(log, '');
  const { uid, gid } = postgresUser();
  const script = `#!/usr/bin/env python3
import json, os, signal, sys
words = sys.argv[1:]
open(${JSON.stringify(log)}, 'a').write(json.dumps(words) + '\\n')
os.environ['PATH'] = ${JSON.stringify(findPostgres15())} + ':/usr/bin:/bin:/usr/sbin:/sbin'
state, home = ${JSON.stringify(state)}, ${JSON.stringify(home)}
verb = words.pop(0)
def pid_of(name):
    return open(os.path.join(state, name)).read()
if verb == 'kill':
    os.kill(int(pid_of(words[2])), getattr(signal, 'SIG' + words[1]))
    sys.exit(0)
if verb == 'rm':
    try: os.kill(int(pid_of(words[1])), signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError): sys.exit(1)
    sys.exit(0)
mounts, name, user, entry = [], None, None, None
flags = ['--rm', '--interactive']
while words[0].startswith('--'):
    option = words.pop(0)
    if option in flags: continue
    value = words.pop(0)
    if option == '--mount': mounts.append(dict((part + '=').split('=')[:2] for part in value.split(',')))
    elif option == '--name': name = value
    elif option == '--user': user = value.split(':')
    elif option == '--entrypoint': entry = value
    elif option == '--env': os.environ[value.split('=')[0]] = value.split('=', 1)[1]
    elif option not in ('--network', '--security-opt', '--cap-drop'): sys.exit('no option ' + option)
image = words.pop(0)
if verb == 'exec':
    os.execvp('nsenter', ['nsenter', '-t', pid_of(image), '-m', '--'] + words)
if image.startswith('none'): sys.exit("Unable to find image '%s' locally" % image)
os.environ['PGDATA'] = home
script = 'set -e; '
for mount in mounts:
    script += 'mount --bind %s %s; ' % (mount['source'], mount['target'])
become = ['setpriv', '--reuid=' + user[0], '--regid=' + user[1], '--clear-groups', '--'] if user else []
words = [w.replace('id -u postgres', 'echo ${uid}').replace('id -g postgres', 'echo ${gid}') for w in words]
if name: open(os.path.join(state, name), 'w').write(str(os.getpid()))
os.execvp('unshare', ['unshare', '--mount', 'sh', '-c', script + 'exec "$@"', 'sh'] + become + [entry] + words)
`;
  writeFileSync(join(folder, 'docker'), script, { mode: 0o755 });
  const calls = () =>
    readFileSync(log, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as string[]);
  return { folder, calls };
}
