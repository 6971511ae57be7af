"""The contract with the vendor's webhook: a delivery's bytes in, one typed `Event` out.

What belongs here: the quirks of a delivery, which is undocumented and known from observation. What stays out: how it
arrives (`inbox`) and where it is kept (`lake`).

Only the id is needed: everything else that a delivery does not say, or says in a way nobody has seen, is None. What
only a delivery tells is the end of a call, how long the contact waited, and whether they gave up.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

from calls_assets.api.client import HIGHEST_ID
from calls_assets.api.errors import ContractError

_ID_TEXT = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_SECONDS_TEXT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_FLAGS: dict[object, bool] = {"1": True, "0": False, "true": True, "false": False}
_LONGEST_WAIT = 31 * 86_400
_FIRST_YEAR, _LAST_YEAR = 2000, 2100


class Event(msgspec.Struct, frozen=True, gc=False):
    """What a delivery says about a call; None means that it does not say.

    Attributes:
        call_id: The call.
        started_at: Its start (UTC).
        ended_at: Its end (UTC).
        waiting_seconds: How long the contact waited.
        is_abandoned: Whether the contact hung up while waiting.
    """

    call_id: int
    started_at: datetime | None = None
    ended_at: datetime | None = None
    waiting_seconds: int | None = None
    is_abandoned: bool | None = None


def decode_event(body: bytes | memoryview) -> Event:
    """Reads a delivery.

    Raises:
        ContractError: It is not a JSON object, or names no call; the message quotes nothing of it.
    """
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ContractError("the delivery is not JSON") from None
    if not isinstance(content, dict):
        raise ContractError("the delivery is not a JSON object")
    return Event(
        call_id=_read_id(content.get("id")),
        started_at=_read_instant(content.get("startedDate")),
        ended_at=_read_instant(content.get("endedDate")),
        waiting_seconds=_read_seconds(content.get("waitingTime")),
        is_abandoned=_read_flag(content.get("abandoned")),
    )


def _read_id(value: object) -> int:
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if not _ID_TEXT.fullmatch(text) or int(text) > HIGHEST_ID:
        raise ContractError("the delivery names no call: id is not a positive whole number")
    return int(text)


def _read_instant(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    if instant.tzinfo is None or not _FIRST_YEAR < instant.year < _LAST_YEAR:
        return None
    return instant.astimezone(UTC)


def _read_seconds(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str):
        if not _SECONDS_TEXT.fullmatch(value.strip()):
            return None
        value = float(value)
    return int(value) if 0 <= value <= _LONGEST_WAIT else None


def _read_flag(value: object) -> bool | None:
    if isinstance(value, (bool, int, str)):
        return _FLAGS.get(str(value).strip().lower())
    return None
