"""Chance without state: numbers that depend on nothing but what they are about.

`random.Random` is kept for the many draws inside one call; these functions are for single draws, ten times cheaper.
"""

from __future__ import annotations

from enum import IntEnum

_MASK = (1 << 64) - 1


class Topic(IntEnum):
    """What a draw is about, so that draws for the same id are independent of each other."""

    DAY_SIZE = 1
    PLACE = 2
    DISORDER = 3
    DISORDER_PLACES = 4
    MISSING = 5
    LATE = 6
    LATE_SECONDS = 7
    MOVE = 8
    MOVE_SECONDS = 9
    MOVE_DELAY = 10
    KIND = 11
    LINK = 12
    LINK_DISTANCE = 13
    CONTACT = 14
    STORY = 15
    QUIRK = 16
    FAULT = 17
    UNKNOWN_KEYS = 18
    STRING_IDS = 19
    LIST_ENVELOPE = 20
    WEBHOOK = 21
    WEBHOOK_PACE = 22
    WEBHOOK_LATE = 23
    WEBHOOK_LATE_SECONDS = 24
    WEBHOOK_REPEAT = 25
    WEBHOOK_REPEAT_SECONDS = 26


def mix(seed: int, topic: Topic, number: int) -> int:
    """A well-spread 64-bit number (SplitMix64's finalizer, Steele et al. 2014)."""
    z = (seed * 0xD1342543DE82EF95 + topic * 0x9E3779B97F4A7C15 + number * 0xA0761D6478BD642F) & _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def chance(seed: int, topic: Topic, number: int) -> float:
    """A number from 0 up to, not including, 1."""
    return (mix(seed, topic, number) >> 11) * 2.0**-53
