"""What a day's tables say about a day's versions."""

import gc
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls_assets.derive import derive_day
from calls_assets.lake.schemas import DAILY_TABLES, TABLES, VERSIONS
from calls_assets_tests.derive.versions import SAMPLE, START, ages, at, call, seconds, to_table, version

UTC_ZONE = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")
DAY = date(2025, 5, 21)
LADDER = ages(1, 24, 168)

Rows = list[dict[str, Any]]


def derive(
    versions: Sequence[Mapping[str, Any]],
    day: date = DAY,
    *,
    timezone: ZoneInfo = UTC_ZONE,
    reread_after: tuple[timedelta, ...] = LADDER,
) -> dict[str, Rows]:
    """Derives a day and gives the rows of its tables."""
    tables = derive_day(to_table(versions), day, timezone=timezone, reread_after=reread_after)
    return {name: table.to_pylist() for name, table in tables.items()}


def columns(rows: Rows, *names: str) -> list[tuple[Any, ...]]:
    """Gives some columns of rows."""
    return [tuple(row[name] for name in names) for row in rows]


def test_the_documented_call_gives_exactly_the_documented_rows() -> None:
    """Every column of every table is as the documentation of vendor and tables has it."""
    tables = derive([version(SAMPLE, "2025-05-21T15:00:00", "2025-05-29T00:00:00", read_count=4)])
    assert tables == {
        "calls": [
            {
                "call_id": 1234,
                "started_at": datetime(2025, 5, 21, 14, 51, 24, tzinfo=UTC),
                "started_at_local": datetime(2025, 5, 21, 14, 51, 24),  # noqa: DTZ001 - wall clock has no zone
                "is_inbound": False,
                "is_answered": True,
                "is_in_queue": False,
                "is_ended": True,
                "type": "answered",
                "duration_seconds": 5,
                "talk_time_seconds": 5,
                "requested_callback": False,
                "is_answered_within_sla": True,
                "is_data_cached": True,
                "original_call_id": 2,
                "contact_id": 4321,
                "contact_full_name": "John Doe",
                "contact_number": "1234567890",
                "contact_national_number": "234567890",
                "contact_number_country_code": "1",
                "contact_list_ids": [1, 2, 3],
                "number_id": 1,
                "number": "1234567891",
                "number_alias": "Number Alias/Friendly Name",
                "campaign_id": 1,
                "campaign_name": "Campaign Name",
                "ring_group_id": 1,
                "ring_group_name": "Ring Group Name",
                "ivr_id": 1,
                "ivr_name": "IVR Name",
                "disposition_id": 1,
                "disposition_code": "Successful Deal",
                "agent_ids": [1],
                "answered_agent_id": 1,
                "agent_leg_count": 1,
                "answered_leg_count": 1,
                "is_transferred": False,
                "recording_count": 1,
                "tags": ["tag1", "tag2", "tag3"],
                "ended_at": None,
                "waiting_seconds": None,
                "is_abandoned": None,
                "read_count": 4,
                "first_read_at": datetime(2025, 5, 21, 15, 0, tzinfo=UTC),
                "last_read_at": datetime(2025, 5, 29, 0, 0, tzinfo=UTC),
                "last_changed_at": datetime(2025, 5, 21, 15, 0, tzinfo=UTC),
                "is_final": True,
            }
        ],
        "call_agents": [
            {
                "call_id": 1234,
                "leg": 0,
                "agent_id": 1,
                "user_id": 43,
                "alias": "Agent Name",
                "sip": "sip:agent@example.com",
                "type": "agent",
                "started_at": datetime(2025, 5, 21, 14, 51, 24, tzinfo=UTC),
                "is_answered": True,
                "is_any_transfer": False,
                "hangup_reason": "NORMAL_CLEARING",
            }
        ],
        "recordings": [
            {
                "call_id": 1234,
                "position": 0,
                "recording_id": 12,
                "url": "https://media.plivo.com/v1/Account/{AccountPlivoID}/Recording/1234567890.mp3",
            }
        ],
        "dispositions": [
            {
                "call_id": 1234,
                "disposition_id": 1,
                "code": "Successful Deal",
                "note": "This is a note for the disposition",
            }
        ],
        "call_tags": [
            {"call_id": 1234, "position": 0, "tag": "tag1"},
            {"call_id": 1234, "position": 1, "tag": "tag2"},
            {"call_id": 1234, "position": 2, "tag": "tag3"},
        ],
        "external_numbers": [{"call_id": 1234, "position": 0, "number": "1234567890", "is_any_transfer": False}],
        "call_changes": [],
    }


def test_a_call_that_says_nothing_is_a_row_of_nulls_without_children() -> None:
    """What the vendor did not say is NULL, never a guess; only the counts are zero."""
    tables = derive([version({"id": 7, "started_at": START}, "2025-05-21T15:00:00")])
    said = {
        "call_id": 7,
        "started_at": at("2025-05-21T14:51:24"),
        "started_at_local": at("2025-05-21T14:51:24").replace(tzinfo=None),
        "agent_leg_count": 0,
        "answered_leg_count": 0,
        "is_transferred": False,
        "recording_count": 0,
        "read_count": 1,
        "first_read_at": at("2025-05-21T15:00:00"),
        "last_read_at": at("2025-05-21T15:00:00"),
        "last_changed_at": at("2025-05-21T15:00:00"),
        "is_final": False,
    }
    assert tables["calls"] == [{name: said.get(name) for name in TABLES["calls"].schema.names}]
    assert [name for name, rows in tables.items() if rows] == ["calls"]


def test_the_vendors_ways_to_say_nothing_and_its_odd_types_give_clean_rows() -> None:
    """Empty texts, lists and zeros for objects are NULL; odd types and "null null" are put right."""
    quirky = call(
        8,
        contact={"id": "4321", "full_name": "null null", "number": 1234567890, "list_ids": ["1", 2]},
        number=[],
        campaign="",
        ring_group=0,
        ivr=None,
        disposition=[],
        agents=["5"],
        all_agents=[{"id": "5", "user_id": "", "alias": "Ann  ", "started_at": 0, "is_any_transfer": 0}],
        answered_agents=[],
        external_numbers=None,
        recordings="",
        tags=None,
        is_inbound=1,
        original_call_id=0,
    )
    tables = derive([version(quirky, "2025-05-21T15:00:00")])
    assert columns(
        tables["calls"],
        *("contact_id", "contact_full_name", "contact_number", "contact_list_ids", "number_id", "campaign_name"),
        *("ring_group_id", "ivr_id", "disposition_code", "agent_ids", "is_inbound", "original_call_id"),
    ) == [(4321, None, "1234567890", [1, 2], None, None, None, None, None, [5], True, None)]
    assert tables["call_agents"] == [
        {
            "call_id": 8,
            "leg": 0,
            "agent_id": 5,
            "user_id": None,
            "alias": "Ann",
            "sip": None,
            "type": None,
            "started_at": None,
            "is_answered": False,
            "is_any_transfer": False,
            "hangup_reason": None,
        }
    ]
    assert [name for name, rows in tables.items() if rows] == ["call_agents", "calls"]


def test_an_edited_call_shows_its_newest_content_and_what_changed_when() -> None:
    """Each field that differs between two reads is one row; the first read is not a change."""
    first = call(9, duration=5, is_ended=False, tags=["a"], note="x")
    second = call(9, duration=9, is_ended=False, tags=["a", "b"], note="x")
    third = call(9, duration=9, is_ended=True, tags=["a", "b"], extra={"deep": 1})
    tables = derive(
        [
            version(first, "2025-05-21T15:00:00", "2025-05-21T15:10:00", read_count=2),
            version(second, "2025-05-21T16:00:00"),
            version(third, "2025-05-21T17:00:00", "2025-05-21T19:00:00", read_count=3),
        ]
    )
    assert columns(
        tables["calls"],
        *("duration_seconds", "is_ended", "tags", "read_count", "first_read_at", "last_read_at", "last_changed_at"),
    ) == [
        (
            9,
            True,
            ["a", "b"],
            6,
            at("2025-05-21T15:00:00"),
            at("2025-05-21T19:00:00"),
            at("2025-05-21T17:00:00"),
        )
    ]
    assert columns(tables["call_tags"], "position", "tag") == [(0, "a"), (1, "b")]
    changes = [
        (
            row["call_id"],
            row["field"],
            *(value and json.loads(value) for value in (row["old_value"], row["new_value"])),
            row["changed_at"],
        )
        for row in tables["call_changes"]
    ]
    assert changes == [
        (9, "duration", 5, 9, at("2025-05-21T16:00:00")),
        (9, "tags", ["a"], ["a", "b"], at("2025-05-21T16:00:00")),
        (9, "extra.deep", None, 1, at("2025-05-21T17:00:00")),
        (9, "is_ended", False, True, at("2025-05-21T17:00:00")),
        (9, "note", "x", None, at("2025-05-21T17:00:00")),
    ]
    assert columns(tables["call_changes"], "field", "old_value", "new_value")[4] == ("note", '"x"', None)


def test_changes_of_one_instant_are_in_the_order_of_the_table() -> None:
    """Three contents, two of them read in the same microsecond: each field changes twice."""
    times = ("2025-05-21T15:00:00", "2025-05-21T16:00:00", "2025-05-21T16:00:00")
    answers = [version(call(1, duration=n, talk_time=n), time) for n, time in enumerate(times)]
    keys = columns(derive(answers)["call_changes"], *TABLES["call_changes"].sort_by)
    assert len(keys) == 4
    assert keys == sorted(keys)


def test_a_404_or_a_quarantined_answer_between_two_contents_does_not_hide_the_change() -> None:
    """Changes are told from one valid answer to the next."""
    tables = derive(
        [
            version(call(9, duration=1), "2025-05-21T15:00:00"),
            version(None, "2025-05-21T16:00:00", call_id=9),
            version(b"<html>", "2025-05-21T17:00:00", call_id=9, error="not JSON"),
            version(call(9, duration=2), "2025-05-21T18:00:00"),
        ]
    )
    assert tables["call_changes"] == [
        {
            "call_id": 9,
            "field": "duration",
            "old_value": "1",
            "new_value": "2",
            "changed_at": at("2025-05-21T18:00:00"),
        }
    ]


@pytest.mark.parametrize(
    "later",
    [
        version(None, "2025-05-30T00:00:00", call_id=1234),
        version(b"{}", "2025-05-30T00:00:00", call_id=1234, error="no calls"),
    ],
    ids=["404", "quarantined"],
)
def test_a_later_bad_answer_never_removes_a_good_row(later: dict[str, Any]) -> None:
    """The row stays as it was, and the bad answer counts neither as a read nor as the last rung."""
    good = version(SAMPLE, "2025-05-21T15:00:00")
    alone = derive([good])
    assert derive([good, later]) == alone
    assert columns(alone["calls"], "read_count", "last_read_at", "is_final") == [(1, at("2025-05-21T15:00:00"), False)]


def test_a_bad_answer_is_bad_whatever_else_is_known_of_it() -> None:
    """Status and error decide, even when a row has a start and a body that today's contract would take."""
    good = version(call(5, duration=1), "2025-05-21T15:00:00")
    quarantined = {**version(call(5, duration=2), "2025-05-21T16:00:00"), "error": "wrong type"}
    missing = {**version(call(5, duration=3), "2025-05-21T17:00:00"), "http_status": 404}
    assert derive([good, quarantined, missing]) == derive([good])


def test_contents_read_in_the_same_microsecond_have_one_winner() -> None:
    """Two runs can read a call at once: which content wins does not depend on the order of the rows."""
    both = [version(call(5, duration=duration), "2025-05-21T15:00:00") for duration in (1, 2)]
    assert derive(both) == derive(both[::-1])


def test_a_call_that_first_was_not_there_is_counted_from_its_first_good_answer() -> None:
    """An id that answered 404 and appears later was first read when it appeared."""
    tables = derive(
        [version(None, "2025-05-21T14:55:00", call_id=7, read_count=5), version(call(7), "2025-05-21T15:00:00")]
    )
    assert columns(tables["calls"], "read_count", "first_read_at") == [(1, at("2025-05-21T15:00:00"))]
    assert tables["call_changes"] == []


def test_ids_without_a_good_answer_give_no_rows_but_every_table() -> None:
    """A day with only 404s and quarantined answers has every table, with its schema and no rows."""
    versions = [
        version(None, "2025-05-21T15:00:00", call_id=1),
        version(b"[", "2025-05-21T15:00:00", call_id=2, error="not JSON"),
    ]
    for table in (to_table(versions), VERSIONS.empty_table(), to_table(versions).slice(0, 0)):
        tables = derive_day(table, DAY, timezone=UTC_ZONE, reread_after=LADDER)
        assert tuple(tables) == DAILY_TABLES
        for name, derived in tables.items():
            assert derived.schema.equals(TABLES[name].schema, check_metadata=True)
            assert derived.num_rows == 0


def test_every_table_has_the_registrys_schema() -> None:
    """Types, nullability, order of columns and descriptions are the registry's, and no column breaks its promise."""
    tables = derive_day(
        to_table([version(SAMPLE, "2025-05-21T15:00:00"), version(dict(SAMPLE, duration=6), "2025-05-21T16:00:00")]),
        DAY,
        timezone=UTC_ZONE,
        reread_after=LADDER,
    )
    assert tuple(tables) == DAILY_TABLES
    for name, table in tables.items():
        table.validate(full=True)
        assert table.schema.equals(TABLES[name].schema, check_metadata=True)
        assert table.num_rows > 0
        assert [f.name for f in table.schema if not f.nullable and table[f.name].null_count] == []


def test_a_call_whose_start_moved_is_only_in_its_newest_day() -> None:
    """The move is stored in both days: the old day drops the call, the new one shows it, and a move back undoes it."""
    before = version(call(5, tags=["a"]), "2025-05-21T15:00:00")
    moved = version(call(5, started_at=seconds("2025-05-22T08:00:00"), tags=["b"]), "2025-05-22T09:00:00")
    back = version(call(5, tags=["c"]), "2025-05-23T09:00:00")
    other_day = date(2025, 5, 22)

    assert all(rows == [] for rows in derive([before, moved]).values())
    shown = derive([moved], other_day)
    assert columns(shown["calls"], "call_id", "started_at", "tags") == [(5, at("2025-05-22T08:00:00"), ["b"])]

    assert columns(derive([before, moved, back])["calls"], "call_id", "tags", "read_count") == [(5, ["c"], 3)]
    assert all(rows == [] for rows in derive([moved, back], other_day).values())


@pytest.mark.parametrize(
    ("is_ended", "last_read_at", "reread_after", "is_final"),
    [
        (True, "2025-05-28T14:51:24", LADDER, True),
        (True, "2025-05-28T14:51:23.999999", LADDER, False),
        (False, "2025-06-28T00:00:00", LADDER, False),
        (None, "2025-06-28T00:00:00", LADDER, False),
        (True, "2025-05-21T14:51:25", (), True),
        (False, "2025-06-28T00:00:00", (), False),
    ],
)
def test_a_call_is_final_when_it_has_ended_and_was_read_past_the_last_rung(
    is_ended: bool | None, last_read_at: str, reread_after: tuple[timedelta, ...], is_final: bool
) -> None:
    """The rung itself is past; without rungs the end is enough; an unknown end is no end."""
    answer = call(5, is_ended=is_ended)
    tables = derive([version(answer, "2025-05-21T14:51:24", last_read_at, read_count=2)], reread_after=reread_after)
    assert columns(tables["calls"], "is_final") == [(is_final,)]


def leg(agent_id: int | None, started_at: int | None, **fields: object) -> dict[str, Any]:
    """Makes a leg as the vendor writes it."""
    return {"id": agent_id, "started_at": started_at, **fields}


@pytest.mark.parametrize(
    ("all_agents", "answered_agents", "legs"),
    [
        # The same agent rang twice and took the second.
        ([leg(1, START), leg(1, START + 20)], [leg(1, START + 20)], [(0, 1, 0, False), (1, 1, 20, True)]),
        # Twice at the same second: one answer answers one leg.
        ([leg(1, START), leg(1, START)], [leg(1, START)], [(0, 1, 0, True), (1, 1, 0, False)]),
        ([leg(1, START), leg(1, START)], [leg(1, START)] * 2, [(0, 1, 0, True), (1, 1, 0, True)]),
        # More answers than legs: the surplus is appended.
        ([leg(1, START)], [leg(1, START)] * 2, [(0, 1, 0, True), (1, 1, 0, True)]),
        # Only among the answered: appended in their order, after all others.
        (
            [leg(1, START)],
            [leg(3, START + 9), leg(1, START), leg(2, START + 5)],
            [(0, 1, 0, True), (1, 3, 9, True), (2, 2, 5, True)],
        ),
        # Another agent, or another start, is another leg.
        ([leg(1, START)], [leg(2, START)], [(0, 1, 0, False), (1, 2, 0, True)]),
        ([leg(1, None)], [leg(1, None)], [(0, 1, None, True)]),
        ([], [], []),
    ],
)
def test_legs_are_answered_one_to_one(
    all_agents: Rows, answered_agents: Rows, legs: list[tuple[int, int, int | None, bool]]
) -> None:
    """A leg is answered by at most one entry of `answered_agents` with its agent and start; the counts agree."""
    tables = derive([version(call(5, all_agents=all_agents, answered_agents=answered_agents), "2025-05-21T15:00:00")])
    found = [
        (position, agent_id, started_at and int(started_at.timestamp()) - START, is_answered)
        for position, agent_id, started_at, is_answered in columns(
            tables["call_agents"], "leg", "agent_id", "started_at", "is_answered"
        )
    ]
    assert found == legs
    assert columns(tables["calls"], "agent_leg_count", "answered_leg_count", "answered_agent_id") == [
        (len(legs), sum(is_answered for *_, is_answered in legs), answered_agents[0]["id"] if answered_agents else None)
    ]


@pytest.mark.parametrize(
    ("fields", "is_transferred"),
    [
        ({"all_agents": [leg(1, START, is_any_transfer=False), leg(2, START, is_any_transfer=True)]}, True),
        ({"external_numbers": [{"number": "1"}, {"number": "2", "is_any_transfer": True}]}, True),
        ({"all_agents": [leg(1, START)], "external_numbers": [{"number": "1", "is_any_transfer": False}]}, False),
        ({"answered_agents": [leg(1, START, is_any_transfer=True)]}, False),
    ],
)
def test_a_call_is_transferred_when_any_leg_or_external_number_is(fields: dict[str, Any], is_transferred: bool) -> None:
    """The marks of `all_agents` and `external_numbers` count, those of `answered_agents` do not."""
    tables = derive([version(call(5, **fields), "2025-05-21T15:00:00")])
    assert columns(tables["calls"], "is_transferred") == [(is_transferred,)]


@pytest.mark.parametrize(
    ("disposition", "rows"),
    [
        ({"id": None, "code": "Sale / won (new), 100%", "note": ""}, [(5, None, "Sale / won (new), 100%", None)]),
        ({"id": 3}, [(5, 3, None, None)]),
        ({"note": "only a note"}, [(5, None, None, "only a note")]),
        ({"id": 0, "code": "", "note": None}, []),
        ({}, []),
        (None, []),
    ],
)
def test_a_disposition_is_a_row_when_it_says_anything(
    disposition: dict[str, Any] | None, rows: list[tuple[Any, ...]]
) -> None:
    """A code, an id or a note alone is a disposition; an object of nothing is none."""
    tables = derive([version(call(5, disposition=disposition), "2025-05-21T15:00:00")])
    assert [tuple(row.values()) for row in tables["dispositions"]] == rows


@pytest.mark.parametrize(
    ("zone", "started_at", "local"),
    [
        ("Europe/Berlin", "2025-03-30T00:59:59", "2025-03-30T01:59:59"),
        ("Europe/Berlin", "2025-03-30T01:00:00", "2025-03-30T03:00:00"),
        ("Europe/Berlin", "2025-10-26T00:30:00", "2025-10-26T02:30:00"),
        ("Europe/Berlin", "2025-10-26T01:30:00", "2025-10-26T02:30:00"),
        ("Europe/Berlin", "2025-10-26T22:59:59", "2025-10-26T23:59:59"),
        ("America/New_York", "2025-03-10T03:59:59", "2025-03-09T23:59:59"),
        ("Asia/Kathmandu", "2025-05-20T18:15:00", "2025-05-21T00:00:00"),
        ("Africa/Cairo", "2025-04-24T22:00:00", "2025-04-25T01:00:00"),
        # The clock went from 00:01 back to the day before: two days that both are not in one piece.
        ("America/St_Johns", "2010-11-07T02:30:59", "2010-11-07T00:00:59"),
        ("America/St_Johns", "2010-11-07T02:31:00", "2010-11-06T23:01:00"),
        ("America/St_Johns", "2010-11-07T03:30:00", "2010-11-07T00:00:00"),
    ],
)
def test_the_wall_clock_and_the_day_follow_the_zones_changes(zone: str, started_at: str, local: str) -> None:
    """Clock changes in spring and autumn, odd offsets and changes at midnight: the call is in its local day only."""
    versions = [version(call(5, started_at=seconds(started_at)), started_at)]
    wall_clock = datetime.fromisoformat(local)
    for days in (-1, 0, 1):
        tables = derive(versions, wall_clock.date() + timedelta(days=days), timezone=ZoneInfo(zone))
        expected = [(at(started_at), wall_clock)] if days == 0 else []
        assert columns(tables["calls"], "started_at", "started_at_local") == expected


def test_calls_are_ordered_by_start_and_the_other_tables_by_call() -> None:
    """The order of rows is the registry's, whatever the order of ids."""
    tables = derive(
        [
            version(call(1, started_at=START + 9, tags=["b", "a"]), "2025-05-21T15:00:00"),
            version(call(2, started_at=START, tags=["c"]), "2025-05-21T15:00:00"),
            version(call(3, started_at=START, tags=["d"]), "2025-05-21T15:00:00"),
        ]
    )
    assert columns(tables["calls"], "call_id") == [(2,), (3,), (1,)]
    assert columns(tables["call_tags"], "call_id", "position", "tag") == [
        (1, 0, "b"),
        (1, 1, "a"),
        (2, 0, "c"),
        (3, 0, "d"),
    ]


def test_a_stored_body_that_no_longer_decodes_gives_way_to_the_next_older_one() -> None:
    """A stricter contract neither crashes a rebuild nor removes a call that an older body can still tell."""
    older = version(call(5, duration=1), "2025-05-21T15:00:00", "2025-05-21T15:30:00", read_count=2)
    oldest_bad = version(b'{"calls": 7}', "2025-05-21T14:52:00", call_id=5)
    newest_bad = version(b'{"calls": 8}', "2025-05-21T16:00:00", call_id=5)
    assert derive([older, newest_bad]) == derive([older])
    assert columns(derive([older])["calls"], "duration_seconds", "read_count") == [(1, 2)]
    assert all(rows == [] for rows in derive([oldest_bad, newest_bad]).values())
    assert derive([oldest_bad, older])["call_changes"] == []
    beside = version(call(6), "2025-05-21T15:00:00")
    assert columns(derive([newest_bad, beside])["calls"], "call_id") == [(6,)]


def test_a_body_that_no_longer_decodes_cannot_move_a_call_to_another_day() -> None:
    """The older day keeps showing the call when the body that moved it is no longer taken."""
    moved = {**version(b"{}", "2025-05-22T09:00:00", call_id=5), "started_at": at("2025-05-22T08:00:00")}
    tables = derive([version(call(5), "2025-05-21T15:00:00"), moved])
    assert columns(tables["calls"], "call_id") == [(5,)]
    assert derive([moved], date(2025, 5, 22))["calls"] == []


@pytest.mark.parametrize("is_enabled", [True, False])
def test_the_collector_is_left_as_it_was(is_enabled: bool) -> None:
    """Pausing the cycle collector leaks neither out of a derivation nor out of one that breaks."""
    was_enabled = gc.isenabled()
    broken = to_table([version(call(5), "2025-05-21T15:00:00")]).set_column(
        VERSIONS.get_field_index("payload"), "payload", pa.array([None], pa.large_binary())
    )
    try:
        (gc.enable if is_enabled else gc.disable)()
        derive([version(SAMPLE, "2025-05-21T15:00:00")])
        assert gc.isenabled() is is_enabled
        with pytest.raises((AttributeError, TypeError)):
            derive_day(broken, DAY, timezone=UTC_ZONE, reread_after=LADDER)
        assert gc.isenabled() is is_enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


_NEXT_DAY = 86_400

answers = st.one_of(
    st.builds(
        lambda moved, duration, agents: {
            "started_at": START + moved,
            "duration": duration,
            "is_ended": True,
            "all_agents": [leg(agent, START) for agent in agents],
            "answered_agents": [leg(agent, START) for agent in agents[::2]],
        },
        st.sampled_from([0, 60, _NEXT_DAY]),
        st.integers(0, 2),
        st.lists(st.integers(1, 3), max_size=3),
    ),
    st.sampled_from(["missing", "quarantined", "undecodable"]),
)


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draws some calls, each with a sequence of answers."""
    versions = []
    for call_id in draw(st.lists(st.integers(1, 2**63 - 1), unique=True, max_size=6)):
        for hour, answer in enumerate(draw(st.lists(answers, min_size=1, max_size=4))):
            read_at = at("2025-05-21T15:00:00") + timedelta(hours=hour, microseconds=hour)
            body = b"{}" if isinstance(answer, str) and answer != "missing" else None
            versions.append(
                version({"id": call_id, **answer}, read_at)
                if isinstance(answer, dict)
                else version(
                    body, read_at, call_id=call_id, read_count=2, error="bad" if answer == "quarantined" else None
                )
            )
    return versions


@settings(max_examples=60, deadline=None)
@given(versions=histories(), data=st.data())
def test_the_tables_depend_only_on_the_set_of_versions(versions: list[dict[str, Any]], data: st.DataObject) -> None:
    """Order of rows, pieces of the table and size of the steps change nothing, and each shown call is one row."""
    table = to_table(versions)
    expected = derive_day(table, DAY, timezone=BERLIN, reread_after=LADDER)

    shuffled = table.take(pa.array(data.draw(st.permutations(range(len(table)))), pa.int64()))
    cut = data.draw(st.integers(0, len(table)))
    pieces = pa.concat_tables([shuffled.slice(0, cut), shuffled.slice(cut)])
    steps = data.draw(st.integers(1, 7))
    again = derive_day(pieces, DAY, timezone=BERLIN, reread_after=LADDER, calls_per_chunk=steps)
    for name, rows in expected.items():
        assert again[name].equals(rows), name

    newest: dict[int, dict[str, Any]] = {}
    for row in versions:
        if row["http_status"] == 200 and row["error"] is None and row["payload"] != b"{}":
            newest[row["call_id"]] = row
    shown = {call_id: row for call_id, row in newest.items() if row["started_at"].date() == DAY}
    calls = expected["calls"].to_pylist()
    assert {row["call_id"]: row["last_read_at"] for row in calls} == {
        call_id: row["last_read_at"] for call_id, row in shown.items()
    }
    for row in calls:
        # An older body that does not decode is only found when it has to decide, so it counts as a read until then.
        counted = [
            other
            for other in versions
            if other["call_id"] == row["call_id"]
            and other["started_at"]
            and other["last_read_at"] <= row["last_read_at"]
        ]
        assert row["read_count"] == sum(other["read_count"] for other in counted)
        assert row["first_read_at"] == counted[0]["first_read_at"]
    assert len(calls) == len(shown)
    for name, child in expected.items():
        assert set(child["call_id"].to_pylist()) <= shown.keys(), name
    legs = expected["call_agents"]["call_id"].to_pylist()
    assert {row["call_id"]: row["agent_leg_count"] for row in calls} == {key: legs.count(key) for key in shown}
