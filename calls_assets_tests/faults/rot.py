"""Bit rot: ways in which files of a finished lake decay without anyone writing them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

KINDS = ("flip", "flip in the footer", "truncate", "zeroes", "swap")
_BLOCK = 512
_FOOTER = 2_000


class Damage(NamedTuple):
    """What happened to one or two files.

    Attributes:
        kind: One of `KINDS`.
        contents: The files' new contents by key.
    """

    kind: str
    contents: dict[str, bytes]


def draw_damage(random: Random, files: dict[str, bytes]) -> Damage:
    """Draws a damage that changes at least one byte: each tree of the lake and each kind is as likely as any other."""
    while True:
        tree = random.choice(sorted({key.split("/")[0] for key in files}))
        key = random.choice(sorted(key for key in files if key.split("/")[0] == tree))
        kind, data = random.choice(KINDS), files[key]
        if kind == "swap":
            other = random.choice(_alike(key, files))
            contents = {key: files[other], other: data}
        else:
            contents = {key: _spoil(random, kind, data)}
        if any(files[name] != content for name, content in contents.items()):
            return Damage(kind, contents)


def _alike(key: str, files: dict[str, bytes]) -> Sequence[str]:
    """Lists the files a file may be mistaken for: of the same table or kind."""
    kind = key.split("/")[:2] if key.count("/") > 1 else key.split("/")[:1]
    return sorted(name for name in files if name.split("/")[: len(kind)] == kind)


def _spoil(random: Random, kind: str, data: bytes) -> bytes:
    match kind:
        case "truncate":
            return data[: random.randrange(len(data))]
        case "zeroes":
            start = random.randrange(len(data)) // _BLOCK * _BLOCK
            return data[:start] + bytes(len(data[start : start + _BLOCK])) + data[start + _BLOCK :]
        case "flip":
            place = random.randrange(len(data))
        case _:
            place = random.randrange(max(0, len(data) - _FOOTER), len(data))
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]
