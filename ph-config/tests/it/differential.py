"""Answers what configparser makes of files, for differential.rs.

The first line written is this Python's version. Then for each file read (four bytes of length,
the most significant first, and its bytes) one line of JSON follows:

    {"refused": "..."}                                       the file as a whole, or
    {"sections": [[NAME, {"refused": "..."}], ...]}          one value of the section, or
    {"sections": [[NAME, {"values": {KEY: TEXT}}], ...]}     all values of the application's keys.

Only what Python 3.8 and all later versions know is used, and the one rule that changed since is
the later one for all: until 3.9 a header ended at its first `]`, now it ends at the last.
"""

import configparser
import io
import json
import re
import struct
import sys

PREFIX = "app_"


class Parser(configparser.ConfigParser):
    if sys.version_info < (3, 10):
        SECTCRE = re.compile(r"\[(?P<header>.+)\]")


def answer(data):
    parser = Parser()
    # As `open` does it: UTF-8, and every kind of line end counts.
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")
    try:
        parser.read_file(text)
    except (configparser.Error, UnicodeDecodeError) as error:
        return {"refused": describe(error)}
    return {"sections": [[name, values(parser, name)] for name in parser.sections()]}


def values(parser, section):
    found = {}
    for key in parser.options(section):
        if key.startswith(PREFIX) and key != PREFIX:
            try:
                found[key[len(PREFIX):]] = parser.get(section, key)
            except configparser.InterpolationError as error:
                return {"refused": describe(error)}
    return {"values": found}


def describe(error):
    return "%s: %s" % (type(error).__name__, error)


def main():
    write(list(sys.version_info[:3]))
    while True:
        head = sys.stdin.buffer.read(4)
        if not head:
            return
        write(answer(sys.stdin.buffer.read(struct.unpack(">I", head)[0])))


def write(thing):
    # Escaped to ASCII, so that no setting of this process matters.
    sys.stdout.write(json.dumps(thing) + "\n")
    sys.stdout.flush()


main()
