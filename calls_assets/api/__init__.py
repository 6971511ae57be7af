"""The vendor's API: how to ask it (`client`), what it says (`contract`, `events`), what can go wrong (`errors`)."""

from calls_assets.api.client import (
    HIGHEST_ID,
    Answer,
    CallsClient,
    ClientConfig,
    ClientStats,
    check_call_id,
    parse_retry_after,
)
from calls_assets.api.connect import connect
from calls_assets.api.contract import (
    Call,
    ExternalNumber,
    Glance,
    Leg,
    Recording,
    decode_call,
    glance_at,
    payload_fields,
)
from calls_assets.api.errors import (
    AccessDeniedError,
    ApiError,
    ContractError,
    PermanentError,
    RedirectRefusedError,
    RequestRefusedError,
    TransientError,
)
from calls_assets.api.events import Event, decode_event

__all__ = [
    "HIGHEST_ID",
    "AccessDeniedError",
    "Answer",
    "ApiError",
    "Call",
    "CallsClient",
    "ClientConfig",
    "ClientStats",
    "ContractError",
    "Event",
    "ExternalNumber",
    "Glance",
    "Leg",
    "PermanentError",
    "Recording",
    "RedirectRefusedError",
    "RequestRefusedError",
    "TransientError",
    "check_call_id",
    "connect",
    "decode_call",
    "decode_event",
    "glance_at",
    "parse_retry_after",
    "payload_fields",
]
