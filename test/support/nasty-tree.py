"""Makes a directory tree of everything that backups are rarely tried with: nasty-tree.py SEED FOLDER, as root.

The same seed gives the same tree. Device nodes are there, although snapshots do not record their numbers.
"""
import os
import random
import socket
import struct
import sys

seed, folder = int(sys.argv[1]), os.fsencode(sys.argv[2])
chance = random.Random(seed)
ENTRIES = 220
SPECIAL_NAMES = [b"...", b"-rf", b" ", b"\n", b"a\nb", b"\xff\xfe", b"*", b"~", b"'\"", b"\\", b"\x01\x7f", b".hidden",
                 "é".encode(), "e\u0301".encode(), b"lost+found", b"CON", b"a:b", b"a=b", b"%00", b"x" * 255, b"\xc3" * 255]
TIMES = [0, -1, 1, 2**31 - 1, 2**31, 2**32, -(2**31), 2**34 - 2**31 - 1, 1_700_000_000]
IDS = [0, 1, 65_534, 65_535, 65_536, 2**31, 2**32 - 2]


def random_name():
    if chance.random() < 0.15:
        return chance.choice(SPECIAL_NAMES)
    length = chance.choice([1, 8, 8, 20, 60, 255])
    if chance.random() < 0.3:
        return bytes(chance.choice([b for b in range(1, 256) if b != 47]) for _ in range(length))
    return bytes(chance.randrange(97, 123) for _ in range(length))


def free_path(parent):
    while True:
        path = parent + b"/" + random_name()
        if not os.path.lexists(path) and path.rsplit(b"/", 1)[1] not in (b".", b".."):
            return path


def random_content():
    kind = chance.random()
    if kind < 0.2:
        return b""
    if kind < 0.9:
        return chance.randbytes(chance.choice([1, 4095, 4096, 4097, 12_000, 70_000]))
    return chance.randbytes(3 * 2**20 + 17)


def make_sparse(path):
    """Data between holes: one in the middle, one at the end."""
    with open(path, "wb") as output:
        output.seek(chance.choice([0, 4096, 1_000_000]))
        output.write(chance.randbytes(5000))
        output.seek(chance.choice([2**20, 5 * 2**20]), os.SEEK_CUR)
        output.write(b"behind a hole")
        output.truncate(output.tell() + chance.choice([0, 1, 4096, 2**21]))


def make_socket(path):
    """The path may be longer than an address can be: it is bound from its directory, under a short name."""
    here = os.getcwd()
    os.chdir(os.path.dirname(path))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(b"s-tmp")
    listener.close()
    os.rename(b"s-tmp", os.path.basename(path))
    os.chdir(here)


def make_entry(parent, files, directories):
    kind = chance.random()
    path = free_path(parent)
    if kind < 0.2:
        os.mkdir(path)
        directories.append(path)
    elif kind < 0.55:
        with open(path, "wb") as output:
            output.write(random_content())
        files.append(path)
    elif kind < 0.6:
        make_sparse(path)
        files.append(path)
    elif kind < 0.7:
        length = chance.choice([1, 59, 60, 61, 1000, 4095])
        os.symlink(bytes(chance.choice([b for b in range(1, 256)]) for _ in range(length)), path)
    elif kind < 0.75:
        os.mkfifo(path)
    elif kind < 0.78:
        make_socket(path)
    elif kind < 0.82:
        os.mknod(path, chance.choice([0o20600, 0o60600]), os.makedev(1, 3))
    elif files and kind < 0.92:
        os.link(chance.choice(files), path)
    else:
        with open(path, "wb") as output:
            output.write(b"small")
        files.append(path)
    return path


def random_acl():
    none = 2**32 - 1
    entries = [(1, none), (2, 1000), (2, 70_000), (4, none), (8, 12), (16, none), (32, none)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, chance.randrange(8), who) for tag, who in entries)


def decorate(path):
    """Owner first: chown takes set-uid bits and capabilities away."""
    os.chown(path, chance.choice(IDS), chance.choice(IDS), follow_symlinks=False)
    is_link, is_plain = os.path.islink(path), os.path.isfile(path) or os.path.isdir(path)
    if not is_link:
        os.chmod(path, chance.randrange(0o10000))
    if not is_link and chance.random() < 0.1:
        os.setxattr(path, "system.posix_acl_access", random_acl(), follow_symlinks=False)
    elif is_plain and not is_link and chance.random() < 0.15:
        for _ in range(chance.choice([1, 1, 1, 4])):
            name = "user." + "".join(chance.choice("abcäß-:/ ") for _ in range(chance.choice([1, 5, 60])))
            os.setxattr(path, name, chance.randbytes(chance.choice([0, 1, 80, 400])), follow_symlinks=False)
    elif chance.random() < 0.05:
        os.setxattr(path, "trusted.nasty", b"\0\xff", follow_symlinks=False)
    seconds = chance.choice(TIMES + [chance.randrange(-(2**31), 2**34 - 2**31)])
    nanoseconds = seconds * 10**9 + chance.choice([0, 1, 999_999_999])
    os.utime(path, ns=(nanoseconds, nanoseconds), follow_symlinks=False)


def make_many(parent):
    """A directory that has to be hashed, and one with sub-directories."""
    many = parent + b"/many names"
    os.mkdir(many)
    for i in range(1500):
        with open(many + b"/" + b"n" * chance.randrange(1, 200) + str(i).encode(), "wb"):
            pass
    deep = parent + b"/deep"
    for _ in range(30):
        os.mkdir(deep)
        deep += b"/" + b"d" * chance.choice([1, 100])
    return many


def main():
    os.makedirs(folder)
    files, directories, entries = [], [folder], []
    make_many(folder)
    for _ in range(ENTRIES):
        entries.append(make_entry(chance.choice(directories), files, directories))
    # From the deepest on: what is made in a directory changes its time.
    for path in sorted(set(entries), key=lambda path: -path.count(b"/")):
        decorate(path)


main()
