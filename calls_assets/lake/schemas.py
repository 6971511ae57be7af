"""The schema registry: every table's columns, types, keys and descriptions, in one place.

It drives writing, the column metadata in files and in Dagster, the checks, and the data dictionary in the docs.
Columns are added at the end, never renamed or retyped. Conventions: ids int64, instants UTC microseconds, durations
whole seconds, texts strings; NULL means "the vendor did not say".
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

INSTANT = pa.timestamp("us", tz="UTC")
WALL_CLOCK = pa.timestamp("us")
_ID = pa.int64()
_SECONDS = pa.int64()
_COUNT = pa.int64()
_POSITION = pa.int64()
_TEXT = pa.string()
_FLAG = pa.bool_()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of the lake.

    Attributes:
        name: Name, also of its directory and files.
        description: What one row is.
        schema: Columns in order; nullability is checked when writing, descriptions are field metadata.
        key: Columns that identify a row.
        sort_by: Columns that order the rows of a file.
        is_daily: One file per day, or a single file.
        tree: Directory of the lake it is in: `tables` or `marts`.
    """

    name: str
    description: str
    schema: pa.Schema
    key: tuple[str, ...]
    sort_by: tuple[str, ...]
    is_daily: bool = True
    tree: str = "tables"


def describe(field: pa.Field) -> str:
    """Gives a column's description."""
    return str((field.metadata or {}).get(b"description", b"").decode())


def _column(name: str, type_: pa.DataType, description: str) -> pa.Field:
    """Makes a column; a name that ends with `*` is never NULL."""
    return pa.field(name.rstrip("*"), type_, nullable=not name.endswith("*"), metadata={"description": description})


def _table(
    name: str,
    description: str,
    columns: list[pa.Field],
    *,
    key: tuple[str, ...],
    sort_by: tuple[str, ...] | None = None,
    is_daily: bool = True,
) -> Table:
    return Table(
        name=name,
        description=description,
        schema=pa.schema(columns, metadata={"description": description}),
        key=key,
        sort_by=sort_by or key,
        is_daily=is_daily,
    )


_CALL_ID = _column("call_id*", _ID, "The call; joins to calls.call_id.")

CALLS = _table(
    "calls",
    "One row per call, in the day its start falls in.",
    [
        _column("call_id*", _ID, "The vendor's number of the call, unique across all days."),
        _column("started_at*", INSTANT, "When the call began."),
        _column("started_at_local", WALL_CLOCK, "When the call began, as wall clock in CALLS_TIMEZONE."),
        _column("is_inbound", _FLAG, "True when the contact called, false when an agent did."),
        _column("is_answered", _FLAG, "Whether anyone answered."),
        _column("is_in_queue", _FLAG, "Whether the call was waiting in a queue when it was read."),
        _column("is_ended", _FLAG, "Whether the call was over when it was read."),
        _column("type", _TEXT, "The vendor's status word, for example answered; new words can appear."),
        _column(
            "duration_seconds",
            _SECONDS,
            "The vendor's duration. On answered calls it equals the talk time: it does not contain the wait.",
        ),
        _column("talk_time_seconds", _SECONDS, "Seconds talked."),
        _column("requested_callback", _FLAG, "Whether the contact asked to be called back."),
        _column(
            "is_answered_within_sla",
            _FLAG,
            "Whether the call was answered within the threshold set at the vendor; the threshold itself is not told.",
        ),
        _column("is_data_cached", _FLAG, "The vendor's mark that the record came from its cache."),
        _column(
            "original_call_id",
            _ID,
            "The call this one continues (callback or transfer); may be unknown, the call itself or part of a cycle.",
        ),
        _column("contact_id", _ID, "The vendor's number of the contact."),
        _column("contact_full_name", _TEXT, "The contact's name."),
        _column("contact_number", _TEXT, "The contact's telephone number, digits as the vendor has them."),
        _column("contact_national_number", _TEXT, "The contact's number without the country code."),
        _column("contact_number_country_code", _TEXT, "The country code of the contact's number."),
        _column("contact_list_ids", pa.list_(_ID), "The contact lists the contact is on."),
        _column("number_id", _ID, "The account's own line: its number at the vendor."),
        _column("number", _TEXT, "The account's own line: telephone number."),
        _column("number_alias", _TEXT, "The account's own line: friendly name."),
        _column("campaign_id", _ID, "The campaign."),
        _column("campaign_name", _TEXT, "The campaign's name when the call was read."),
        _column("ring_group_id", _ID, "The ring group (queue)."),
        _column("ring_group_name", _TEXT, "The ring group's name when the call was read."),
        _column("ivr_id", _ID, "The voice menu."),
        _column("ivr_name", _TEXT, "The voice menu's name when the call was read."),
        _column("disposition_id", _ID, "The outcome an agent set; joins to dispositions."),
        _column("disposition_code", _TEXT, "The outcome's text."),
        _column("agent_ids", pa.list_(_ID), "The vendor's list of the call's agents."),
        _column("answered_agent_id", _ID, "The first agent who answered."),
        _column("agent_leg_count", _COUNT, "Rows of this call in call_agents."),
        _column("answered_leg_count", _COUNT, "Rows of this call in call_agents that were answered."),
        _column("is_transferred", _FLAG, "Whether any agent leg or external number is marked as a transfer."),
        _column("recording_count", _COUNT, "Rows of this call in recordings."),
        _column("tags", pa.list_(_TEXT), "Tags, in the vendor's order; also in call_tags."),
        _column("ended_at", INSTANT, "When the call ended: told by the webhook only, else NULL."),
        _column(
            "waiting_seconds",
            _SECONDS,
            "Seconds the contact waited: told by the webhook only, else NULL. Never derived.",
        ),
        _column(
            "is_abandoned", _FLAG, "Whether the contact hung up while waiting: told by the webhook only, else NULL."
        ),
        _column("read_count*", _COUNT, "How often the API gave this call."),
        _column("first_read_at*", INSTANT, "When the call was read first."),
        _column("last_read_at*", INSTANT, "When the call was read last."),
        _column("last_changed_at*", INSTANT, "When the content shown here was read first."),
        _column(
            "is_final*",
            _FLAG,
            "True when the call has ended and was read after the last re-read age (CALLS_REREAD_AFTER): "
            "it is not asked for again.",
        ),
    ],
    key=("call_id",),
    sort_by=("started_at", "call_id"),
)

CALL_AGENTS = _table(
    "call_agents",
    "One row per agent leg of a call: an agent can have several legs in one call.",
    [
        _CALL_ID,
        _column("leg*", _POSITION, "Position of the leg in the call, from 0."),
        _column("agent_id", _ID, "The agent; joins to agents.agent_id."),
        _column("user_id", _ID, "The agent's user: another id space than agent_id."),
        _column("alias", _TEXT, "The agent's display name when the call was read."),
        _column("sip", _TEXT, "The SIP address that rang."),
        _column("type", _TEXT, "The vendor's kind of leg."),
        _column("started_at", INSTANT, "When the leg began."),
        _column("is_answered*", _FLAG, "Whether the leg was answered."),
        _column("is_any_transfer", _FLAG, "Whether the leg is part of a transfer."),
        _column("hangup_reason", _TEXT, "Why the leg ended; new words can appear."),
    ],
    key=("call_id", "leg"),
)

RECORDINGS = _table(
    "recordings",
    "One row per recording of a call.",
    [
        _CALL_ID,
        _column("position*", _POSITION, "Position in the vendor's list, from 0."),
        _column("recording_id", _ID, "The vendor's number of the recording."),
        _column("url", _TEXT, "Where the recording is. Treat it as a secret: some need no login."),
    ],
    key=("call_id", "position"),
)

DISPOSITIONS = _table(
    "dispositions",
    "One row per call that has a disposition.",
    [
        _CALL_ID,
        _column("disposition_id", _ID, "The outcome's number."),
        _column("code", _TEXT, "The outcome's text."),
        _column("note", _TEXT, "What the agent wrote."),
    ],
    key=("call_id",),
)

CALL_TAGS = _table(
    "call_tags",
    "One row per tag of a call.",
    [
        _CALL_ID,
        _column("position*", _POSITION, "Position in the vendor's list, from 0."),
        _column("tag", _TEXT, "The tag."),
    ],
    key=("call_id", "position"),
)

EXTERNAL_NUMBERS = _table(
    "external_numbers",
    "One row per external number a call was connected to.",
    [
        _CALL_ID,
        _column("position*", _POSITION, "Position in the vendor's list, from 0."),
        _column("number", _TEXT, "The telephone number, digits as the vendor has them."),
        _column("is_any_transfer", _FLAG, "Whether the number is part of a transfer."),
    ],
    key=("call_id", "position"),
)

CALL_CHANGES = _table(
    "call_changes",
    "One row per field that changed between two reads of a call, after the first.",
    [
        _CALL_ID,
        _column("field*", _TEXT, "Dotted path of the field in the vendor's record."),
        _column("old_value", _TEXT, "The earlier value as JSON; NULL when the field was not there."),
        _column("new_value", _TEXT, "The later value as JSON; NULL when the field is gone."),
        _column("changed_at*", INSTANT, "When the later value was read first."),
    ],
    key=("call_id", "changed_at", "field"),
)

AGENTS = _table(
    "agents",
    "One row per agent ever seen on a call.",
    [
        _column("agent_id*", _ID, "The agent."),
        _column("user_id", _ID, "The agent's user, as seen last."),
        _column("alias", _TEXT, "The agent's display name, as seen last."),
        _column("sip", _TEXT, "The agent's SIP address, as seen last."),
        _column("first_seen_at*", INSTANT, "Start of the agent's first leg or call."),
        _column("last_seen_at*", INSTANT, "Start of the agent's last leg or call."),
    ],
    key=("agent_id",),
    is_daily=False,
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        CALL_AGENTS,
        RECORDINGS,
        DISPOSITIONS,
        CALL_TAGS,
        EXTERNAL_NUMBERS,
        CALL_CHANGES,
        CALLS,
        AGENTS,
    )
}
"""The public tables in the order in which they are written: children before `calls`."""

DAILY_TABLES: tuple[str, ...] = tuple(name for name, table in TABLES.items() if table.is_daily)

CALL_RECORDS = _table(
    "call_records",
    "One row per distinct answer of the API about an id. Append-only, not meant for analysis.",
    [
        _column("call_id*", _ID, "The id asked for."),
        _column("fetched_at*", INSTANT, "When this answer was given last."),
        _column("http_status*", pa.int16(), "200, or 404 for an id the API does not have."),
        _column("started_at", INSTANT, "The call's start; NULL for 404 and quarantined answers."),
        _column("is_ended", _FLAG, "Whether the call was over; NULL as above."),
        _column("content_hash*", pa.binary(16), "BLAKE2b of status and body: equal answers are stored once."),
        _column("error", _TEXT, "Why a 200 is quarantined, else NULL."),
        _column("payload", pa.large_binary(), "The body's bytes, unchanged; NULL for 404."),
        _column("reads*", pa.list_(INSTANT), "Every instant at which this answer was given, rising."),
    ],
    key=("call_id", "content_hash"),
    sort_by=("call_id", "fetched_at"),
)

CALL_EVENTS = _table(
    "call_events",
    "One row per delivery of the vendor's webhook. Append-only, not meant for analysis.",
    [
        _column("call_id*", _ID, "The call it is about."),
        _column("received_at*", INSTANT, "When it was received."),
        _column("payload*", pa.large_binary(), "The body's bytes, unchanged."),
    ],
    key=("call_id", "received_at", "payload"),
    sort_by=("call_id", "received_at"),
)

VERSIONS = pa.schema(
    [
        *(CALL_RECORDS.schema.field(name) for name in ("call_id", "http_status", "started_at", "is_ended", "error")),
        *(CALL_RECORDS.schema.field(name) for name in ("content_hash", "payload")),
        _column("first_read_at*", INSTANT, "First read of this content in a row of equal ones."),
        _column("last_read_at*", INSTANT, "Last read of this content in a row of equal ones."),
        _column("read_count*", pa.int32(), "Reads in the row."),
    ]
)
"""What `Lake.read_day` gives: one row per run of equal answers about an id, by call_id, first_read_at."""

INDEX = pa.schema(
    [
        _column("day*", pa.date32(), "Day the read is stored in."),
        _column("call_id*", _ID, "The id."),
        _column("read_at*", INSTANT, "Newest read of the id in this day."),
        _column("read_count*", pa.int32(), "Reads of the id in this day."),
        *(CALL_RECORDS.schema.field(name) for name in ("http_status", "started_at", "is_ended", "error")),
    ]
)
"""What `Lake.read_index` gives: the newest answer for each (day, id)."""
