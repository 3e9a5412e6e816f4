"""compare-device.py URI IMAGE: reads every block of an NBD export and compares it with an image file.

A block may be right or refused with EIO; what else happens is an error. Prints one JSON object:
{"wrong": [offsets of blocks with other bytes], "unreadable": blocks refused, "compared": blocks read}.
"""
import errno
import json
import sys

import nbd

BLOCK = 4096
# As many blocks as one request asks for; where it is refused, its blocks are asked for one by one.
REQUEST = 64 * BLOCK

uri, image = sys.argv[1:]
handle = nbd.NBD()
handle.connect_uri(uri)
result = {"wrong": [], "unreadable": 0, "compared": 0}


def compare(offset, expected):
    try:
        found = handle.pread(len(expected), offset)
    except nbd.Error as error:
        if error.errnum != errno.EIO:
            raise
        if len(expected) == BLOCK:
            result["unreadable"] += 1
            return
        for start in range(0, len(expected), BLOCK):
            compare(offset + start, expected[start:start + BLOCK])
        return
    result["compared"] += len(expected) // BLOCK
    if found != expected:
        for start in range(0, len(expected), BLOCK):
            if found[start:start + BLOCK] != expected[start:start + BLOCK]:
                result["wrong"].append(offset + start)


size = handle.get_size()
with open(image, "rb") as file:
    for offset in range(0, size, REQUEST):
        expected = file.read(min(REQUEST, size - offset))
        if len(expected) != min(REQUEST, size - offset):
            raise SystemExit("the image is shorter than the export")
        compare(offset, expected)
    if file.read(1):
        raise SystemExit("the image is longer than the export")
handle.shutdown()
print(json.dumps(result))
