"""The vendor's oddities, as observed: "nothing" in many forms, stray blanks, URLs without a scheme, unknown keys.

Which call has which is decided by its dice, never by when or how often it is read.
"""

from __future__ import annotations

from random import Random
from typing import Any

from calls_assets.simulator.story import Payload

_OBJECTS = ("contact", "number", "campaign", "ring_group", "ivr", "disposition")
_LISTS = ("agents", "all_agents", "answered_agents", "external_numbers", "recordings", "tags")
_ID_KEYS = frozenset({"id", "user_id", "original_call_id"})


def apply_quirks(payload: Payload, dice: Random) -> None:
    """Makes a call odd in one of the known ways, in place. The call's id and start stay as they are."""
    which = int(8 * dice.random())
    if which == 0:
        _vary_nothing(payload, dice)
    elif which == 1:
        _drop_nothing(payload)
    elif which == 2:
        _spoil_names(payload, dice)
    elif which == 3:
        _write_phones_as_numbers(payload)
    elif which == 4:
        for recording in payload["recordings"]:
            recording["url"] = recording["url"].removeprefix("https://")
    elif which == 5:
        call_id = payload["id"]
        payload["original_call_id"] = (0, "", call_id, call_id ^ 1)[int(4 * dice.random())]  # itself; two in a ring
    elif which == 6:
        for key in ("is_inbound", "is_answered", "is_ended"):
            payload[key] = int(payload[key])
    else:
        add_unknown_keys(payload)
        for leg in payload["all_agents"]:
            if leg["hangup_reason"] == "NO_ANSWER":
                leg["hangup_reason"] = "SIMULATED_UNKNOWN_REASON"


def add_unknown_keys(payload: Payload) -> None:
    """Adds keys no documentation knows, at two depths, in place."""
    payload["x_simulated"] = {"nested": [1, {"deep": None}], "score": 0.5}
    for leg in payload["all_agents"] or []:
        leg["x_wrap_up"] = None


def write_ids_as_text(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A copy of a JSON value with every id in it as text."""
    if isinstance(value, list):
        return [write_ids_as_text(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: str(item) if key in _ID_KEYS and isinstance(item, int) else write_ids_as_text(item)
        for key, item in value.items()
    }


def _vary_nothing(payload: Payload, dice: Random) -> None:
    for key in _OBJECTS:
        if payload[key] is None:
            payload[key] = (None, "", [], {}, 0)[int(5 * dice.random())]
    for key in _LISTS:
        form: Any = (None, "", [], 0)[int(4 * dice.random())]
        if not payload[key]:
            payload[key] = form


def _drop_nothing(payload: Payload) -> None:
    for key in (*_OBJECTS, *_LISTS, "original_call_id"):
        if not payload[key]:
            del payload[key]


def _spoil_names(payload: Payload, dice: Random) -> None:
    is_null = dice.random() < 0.5
    if payload["contact"]:
        payload["contact"]["full_name"] = "null null" if is_null else payload["contact"]["full_name"] + "  "
    payload["number"]["alias"] += " "
    for leg in (*payload["all_agents"], *payload["answered_agents"]):
        leg["alias"] += " "


def _write_phones_as_numbers(payload: Payload) -> None:
    payload["number"]["number"] = int(payload["number"]["number"])
    if payload["contact"]:
        for key in ("number", "national_number"):
            payload["contact"][key] = int(payload["contact"][key])
    for external in payload["external_numbers"]:
        external["number"] = int(external["number"])
