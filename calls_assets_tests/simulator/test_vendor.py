"""The model: pure, ordered, incomplete and late in the ways the real API is."""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls_assets.api import decode_call
from calls_assets.simulator import Account, Vendor
from calls_assets.simulator.quirks import write_ids_as_text

NEW_YORK = ZoneInfo("America/New_York")
TUESDAY = date(2025, 5, 13)
LONG_AFTER = datetime(2025, 6, 30, tzinfo=UTC)
VENDOR = Vendor(Account())
CLEAN = Vendor(Account(quirk_share=0, late_share=0, missing_share=0))
DOCUMENTED_KEYS = [
    *("id", "is_inbound", "is_answered", "is_in_queue", "contact", "agents", "all_agents", "answered_agents"),
    *("external_numbers", "number", "started_at", "duration", "talk_time", "requested_callback", "is_ended", "type"),
    *("is_answered_within_sla", "is_data_cached", "original_call_id", "campaign", "ring_group", "ivr", "disposition"),
    *("recordings", "tags"),
]


def _calls(vendor: Vendor, step: int = 1, now: datetime = LONG_AFTER) -> list[dict[str, Any]]:
    answers = (vendor.answer(call_id, now) for call_id in vendor.ids_of_day(TUESDAY)[::step])
    return [answer for answer in answers if answer is not None]


@given(place=st.integers(-5, 90_000), minutes=st.integers(0, 60 * 24 * 40))
@settings(max_examples=150, deadline=None)
def test_an_answer_depends_on_nothing_but_account_id_and_moment(place: int, minutes: int) -> None:
    """A vendor that answered thousands before and one that is new give the same."""
    call_id, now = 65_123 + place, datetime(2025, 5, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    assert VENDOR.answer(call_id, now) == Vendor(Account()).answer(call_id, now)


def test_another_seed_is_another_account() -> None:
    """Seeds change starts and contents."""
    other = Vendor(Account(seed=2))
    assert other.started_at(70_000) != VENDOR.started_at(70_000)
    assert other.answer(70_000, LONG_AFTER) != VENDOR.answer(70_000, LONG_AFTER)


def test_changing_an_answer_changes_no_later_answer() -> None:
    """Answers share no lists or dicts, whatever the caller does to them."""
    vendor = Vendor(Account(quirk_share=1))
    for call_id in vendor.ids_of_day(TUESDAY)[:200]:
        answer = vendor.answer(call_id, LONG_AFTER)
        before = json.dumps(answer)
        if answer is not None:
            for value in answer.values():
                if isinstance(value, list | dict):
                    value.clear()
            answer.clear()
        assert json.dumps(vendor.answer(call_id, LONG_AFTER)) == before


@pytest.mark.parametrize("disorder", [0, 20, 100])
def test_ids_rise_with_time_but_for_the_disorder(disorder: int) -> None:
    """Calls further apart than the disorder are in order; with a disorder, some that are closer are not."""
    vendor = Vendor(Account(disorder=disorder))
    ids = range(65_123, 65_123 + 6_000)
    starts = [vendor.started_at(call_id) for call_id in ids]
    highest_before = starts[0]
    for place in range(disorder, len(starts)):
        highest_before = max(highest_before, starts[place - disorder])
        assert starts[place] >= highest_before
    inversions = sum(later < earlier for earlier, later in pairwise(starts))
    assert (inversions > 100) == (disorder > 0)


def test_a_late_start_is_late_by_at_most_15_minutes() -> None:
    """In quiet nights the disorder is bounded by time."""
    ordered, disordered = Vendor(Account(disorder=0)), Vendor(Account(disorder=100))
    delays = [disordered.started_at(id_) - ordered.started_at(id_) for id_ in range(65_123, 70_123)]
    assert min(delays) == timedelta(0)
    assert timedelta(minutes=14) < max(delays) <= timedelta(minutes=15)


@pytest.mark.parametrize(
    ("timezone", "day"),
    [
        ("America/New_York", date(2025, 11, 2)),
        ("America/New_York", date(2026, 3, 8)),
        ("Australia/Lord_Howe", date(2025, 10, 5)),
        ("Asia/Kathmandu", date(2025, 8, 1)),
        ("UTC", date(2025, 8, 1)),
    ],
)
def test_the_ids_of_a_day_begin_on_that_local_day(timezone: str, day: date) -> None:
    """Days of 23, 23.5 and 25 hours included: only the disorder near midnight crosses over."""
    vendor = Vendor(Account(timezone=timezone, disorder=0))
    ids = vendor.ids_of_day(day)
    zone = ZoneInfo(timezone)
    assert {vendor.started_at(call_id).astimezone(zone).date() for call_id in ids} == {day}
    assert ids.start == vendor.ids_of_day(day - timedelta(1)).stop
    disordered = Vendor(Account(timezone=timezone))
    strays = [id_ for id_ in ids if disordered.started_at(id_).astimezone(zone).date() != day]
    assert all(id_ >= ids.stop - 20 for id_ in strays)


def test_a_week_follows_the_working_day() -> None:
    """Workdays are busy, weekends are not; mid-morning is, four at night is not; the mean is the one asked for."""
    sizes = [len(VENDOR.ids_of_day(date(2025, 5, 5) + timedelta(number))) for number in range(28)]
    assert sum(sizes) / 28 == pytest.approx(2_000, rel=0.03)
    assert max(sizes[5::7] + sizes[6::7]) < min(sizes[0:5]) / 2
    hours = Counter(VENDOR.started_at(id_).astimezone(NEW_YORK).hour for id_ in VENDOR.ids_of_day(TUESDAY))
    assert hours[10] > 20 * max(1, hours[3])
    assert hours[10] > 2 * hours[18] > 0


def test_before_the_first_day_there_is_nothing() -> None:
    """Neither ids nor answers; and a quiet account has none at all."""
    assert len(VENDOR.ids_of_day(date(2025, 4, 30))) == 0
    assert VENDOR.highest_id(datetime(2025, 4, 30, tzinfo=UTC)) is None
    assert VENDOR.answer(65_122, LONG_AFTER) is None
    assert VENDOR.answer(0, LONG_AFTER) is None
    assert VENDOR.answer(-1, LONG_AFTER) is None
    quiet = Vendor(Account(calls_per_day=0))
    assert quiet.highest_id(LONG_AFTER) is None
    assert quiet.answer(65_123, LONG_AFTER) is None
    with pytest.raises(ValueError, match="century"):
        quiet.started_at(65_123)


def test_the_future_is_not_found() -> None:
    """Huge ids too, at once; a call exists from its first second."""
    call_id = next(id_ for id_ in CLEAN.ids_of_day(TUESDAY))
    begun = CLEAN.started_at(call_id)
    assert CLEAN.answer(call_id, begun - timedelta(seconds=1)) is None
    assert CLEAN.answer(call_id, begun) is not None
    assert CLEAN.answer(2**63 - 1, LONG_AFTER) is None
    with pytest.raises(ValueError, match="century"):
        CLEAN.started_at(2**63 - 1)
    with pytest.raises(ValueError, match="below"):
        CLEAN.started_at(1)


@given(minutes=st.integers(0, 60 * 24 * 20))
@settings(max_examples=40, deadline=None)
def test_the_highest_id_is_the_highest_that_is_found(minutes: int) -> None:
    """Everything in reach of the disorder above it is 404, the id itself is not."""
    now = datetime(2025, 5, 1, 9, tzinfo=UTC) + timedelta(minutes=minutes)
    highest = VENDOR.highest_id(now)
    if highest is None:
        assert now < datetime(2025, 5, 1, 14, tzinfo=UTC)
        return
    assert VENDOR.answer(highest, now) is not None
    assert all(VENDOR.answer(highest + step, now) is None for step in range(1, 150))


def test_two_in_a_hundred_ids_are_missing_for_ever() -> None:
    """Their share is the one asked for, and no later moment brings them."""
    missing = [id_ for id_ in range(65_123, 105_123) if VENDOR.is_missing(id_)]
    assert 0.018 < len(missing) / 40_000 < 0.022
    assert all(VENDOR.answer(id_, LONG_AFTER + timedelta(400)) is None for id_ in missing)
    not_found = [id_ for id_ in range(65_123, 66_123) if VENDOR.answer(id_, LONG_AFTER) is None]
    assert not_found == [id_ for id_ in missing if id_ < 66_123]


def test_some_ids_appear_minutes_after_their_call_began() -> None:
    """404 first, 200 within 20 minutes."""
    vendor = Vendor(Account(missing_share=0))
    ids = range(65_123, 68_123)
    late = [id_ for id_ in ids if vendor.answer(id_, vendor.started_at(id_) + timedelta(seconds=30)) is None]
    assert 0.005 < len(late) / len(ids) < 0.015
    assert all(vendor.answer(id_, vendor.started_at(id_) + timedelta(minutes=20)) is not None for id_ in late)


def test_a_clean_call_has_the_documented_shape() -> None:
    """The keys of the documentation's sample, in its order, at every level."""
    for call in _calls(CLEAN, 8):
        assert list(call) == DOCUMENTED_KEYS
        for leg in call["all_agents"]:
            assert list(leg) == [
                *("id", "user_id", "alias", "sip", "started_at", "type", "is_any_transfer", "hangup_reason")
            ]
        if call["contact"]:
            assert list(call["contact"]) == [
                *("id", "full_name", "number_country_code", "national_number", "number", "list_ids")
            ]
        assert list(call["number"]) == ["id", "number", "numberWithAlias", "alias"]


def test_a_day_has_everything_a_contact_centre_has() -> None:
    """Both directions, every outcome, transfers, agents seen twice, callbacks, repeats, recordings, notes, tags."""
    calls = _calls(CLEAN)
    by_id = {call["id"]: call for call in calls}
    outcomes = Counter((call["is_inbound"], call["type"]) for call in calls)
    assert len(outcomes) == 10
    assert outcomes[True, "answered"] / len(calls) == pytest.approx(0.47, abs=0.05)
    answered = [call for call in calls if call["type"] == "answered"]
    assert 0.7 < sum(bool(call["recordings"]) for call in answered) / len(answered) < 0.97
    assert 0.8 < sum(call["disposition"] is not None for call in answered) / len(answered) < 0.98
    within_sla = [call["is_answered_within_sla"] for call in answered if call["is_inbound"]]
    assert 0.5 < sum(within_sla) / len(within_sla) < 0.95
    assert any(call["disposition"] and call["disposition"]["note"] for call in calls)
    assert any(len(call["tags"]) > 1 for call in calls)
    assert any(any(leg["is_any_transfer"] for leg in call["all_agents"]) for call in calls)
    assert any(any(number["is_any_transfer"] for number in call["external_numbers"]) for call in calls)
    handed_back = [call["answered_agents"] for call in calls if len(call["answered_agents"]) == 3]
    assert handed_back
    assert all(legs[0]["id"] == legs[-1]["id"] for legs in handed_back)
    assert {leg["hangup_reason"] for call in calls for leg in call["all_agents"]} >= {
        *("NO_ANSWER", "LOSE_RACE", "ORIGINATOR_CANCEL", "NORMAL_CLEARING", "ATTENDED_TRANSFER")
    }
    linked = [(call, by_id[call["original_call_id"]]) for call in calls if call["original_call_id"] in by_id]
    assert len(linked) > 30
    assert all(call["started_at"] >= original["started_at"] for call, original in linked)
    same_contact = [c["contact"]["id"] == o["contact"]["id"] for c, o in linked if c["contact"] and o["contact"]]
    assert all(same_contact)
    callbacks = [(call, original) for call, original in linked if not call["is_inbound"]]
    assert callbacks
    assert all(original["requested_callback"] for _, original in callbacks)


def test_people_numbers_and_addresses_are_plainly_invented() -> None:
    """Numbers are 555-01xx, addresses at example domains."""
    for call in _calls(CLEAN, 3):
        numbers = [call["number"]["number"], *(item["number"] for item in call["external_numbers"])]
        if call["contact"]:
            numbers.append(call["contact"]["number"])
        assert all(number[4:9] == "55501" and len(number) == 11 for number in numbers)
        assert all(leg["sip"].endswith("@pbx.example.com") for leg in call["all_agents"])
        assert all(item["url"].startswith("https://recordings.example/") for item in call["recordings"])


@given(place=st.integers(0, 5_000))
@settings(max_examples=60, deadline=None)
def test_a_call_grows_into_its_end(place: int) -> None:
    """Nothing that was true is taken back: durations and lists only grow, flags turn once."""
    call_id = CLEAN.ids_of_day(TUESDAY).start + place
    begun = CLEAN.started_at(call_id)
    steps = [*range(0, 900, 15), 3_600, 7_200, *(86_400 * day for day in range(1, 8))]
    states = [CLEAN.answer(call_id, begun + timedelta(seconds=step)) for step in steps]
    assert states[0] is not None
    assert states[0]["is_ended"] is False
    for before, after in pairwise(states):
        assert before is not None
        assert after is not None
        for key in ("duration", "talk_time", "is_answered", "is_ended", "requested_callback", "is_data_cached"):
            assert after[key] >= before[key]
        for key in ("all_agents", "answered_agents", "external_numbers", "recordings", "tags"):
            assert len(after[key]) >= len(before[key])
        assert not (after["is_in_queue"] and after["is_ended"])
        if before["is_ended"]:
            assert (before["type"], before["duration"]) == (after["type"], after["duration"])
    final = states[-1]
    assert final is not None
    assert final["is_ended"] is True
    assert final["talk_time"] <= final["duration"]
    assert (final["duration"] > 0) == final["is_answered"] == bool(final["answered_agents"])
    assert all(leg in final["all_agents"] for leg in final["answered_agents"])


def test_calls_in_progress_are_seen_at_noon() -> None:
    """Some talk, some wait, and two hours later all have ended."""
    vendor = Vendor(Account(quirk_share=0, calls_per_day=10_000))
    noon = datetime(2025, 5, 13, 12, tzinfo=NEW_YORK)
    at_noon = (vendor.answer(id_, noon) for id_ in vendor.ids_of_day(TUESDAY)[5_000:8_000])
    running = [call for call in at_noon if call is not None and not call["is_ended"]]
    assert {call["type"] for call in running} == {"in_progress", "queued", "ringing"}
    assert any(call["is_in_queue"] for call in running)
    talking = [call for call in running if call["type"] == "in_progress"]
    assert all(call["answered_agents"][-1]["hangup_reason"] is None for call in talking)
    later = [vendor.answer(call["id"], noon + timedelta(hours=2)) for call in running]
    assert all(call is not None and call["is_ended"] for call in later)


@given(place=st.integers(0, 40_000), quirks=st.booleans())
@settings(max_examples=200, deadline=None)
def test_nothing_changes_after_seven_days(place: int, quirks: bool) -> None:
    """A read at the last rung is the last word."""
    vendor = VENDOR if quirks else CLEAN
    call_id = 65_123 + place
    begun = vendor.started_at(call_id)
    assert vendor.answer(call_id, begun + timedelta(days=7)) == vendor.answer(call_id, begun + timedelta(days=30))


def test_details_arrive_over_minutes_hours_and_days() -> None:
    """At every rung in between, some calls differ from what they become."""
    ids = CLEAN.ids_of_day(TUESDAY)[::6]
    changed = {}
    for age in (timedelta(hours=1), timedelta(hours=24), timedelta(days=4), timedelta(days=7)):
        states = [(CLEAN.answer(id_, CLEAN.started_at(id_) + age), CLEAN.answer(id_, LONG_AFTER)) for id_ in ids]
        changed[age] = sum(then != final for then, final in states) / len(ids)
    assert 0.3 < changed[timedelta(hours=1)] < 0.9
    assert 0.02 < changed[timedelta(hours=24)] < 0.2
    assert 0 < changed[timedelta(days=4)] < 0.05
    assert changed[timedelta(days=7)] == 0


def test_a_corrected_start_can_be_on_another_day() -> None:
    """With a share of moves, starts change once, within seven days, for some across midnight."""
    vendor = Vendor(Account(moves_share=0.2))
    moved = days = 0
    for call_id in vendor.ids_of_day(TUESDAY)[::2]:
        first = vendor.started_at(call_id)
        last = vendor.started_at(call_id, first + timedelta(days=7))
        answer = vendor.answer(call_id, LONG_AFTER)
        assert answer is None or answer["started_at"] == last.timestamp()
        assert vendor.started_at(call_id, max(first, last)) == first
        moved += last != first
        days += last.astimezone(NEW_YORK).date() != first.astimezone(NEW_YORK).date()
    assert 0.15 < 2 * moved / len(vendor.ids_of_day(TUESDAY)) < 0.25
    assert days > moved / 4


@pytest.mark.parametrize("quirk_share", [0, 1])
def test_every_answer_is_within_the_contract(quirk_share: int) -> None:
    """The client's contract takes every body, odd or not, ended or not, with ids as text too; none has NaN."""
    vendor = Vendor(Account(quirk_share=quirk_share))
    for now in (LONG_AFTER, datetime(2025, 5, 13, 12, tzinfo=NEW_YORK)):
        for call in _calls(vendor, 6, now):
            body = msgspec.json.encode({"calls": call})
            assert json.loads(body, parse_constant=pytest.fail)["calls"] == call
            assert decode_call(call["id"], body).started_at.timestamp() == call["started_at"]
            as_text = msgspec.json.encode({"calls": write_ids_as_text(call)})
            assert decode_call(call["id"], as_text) == decode_call(call["id"], body)


def test_oddities_are_there() -> None:
    """Every observed quirk occurs in a day of an account that has nothing else."""
    calls = _calls(Vendor(Account(quirk_share=1)))
    contacts = [call["contact"] for call in calls if isinstance(call.get("contact"), dict) and call["contact"]]
    assert any("disposition" not in call for call in calls)
    assert {str(call["ivr"]) for call in calls if not call.get("ivr", 1)} == {"None", "", "[]", "{}", "0"}
    assert {str(call["tags"]) for call in calls if not call.get("tags", 1)} == {"None", "", "[]", "0"}
    assert any(contact["full_name"] == "null null" for contact in contacts)
    assert any(contact["full_name"].endswith("  ") for contact in contacts)
    assert any(isinstance(contact["number"], int) for contact in contacts)
    assert any(type(call["is_ended"]) is int for call in calls)
    assert any("x_simulated" in call for call in calls)
    assert any(call.get("original_call_id") == call["id"] for call in calls)
    urls = [recording["url"] for call in calls for recording in call.get("recordings") or []]
    assert {url.split("recordings.example")[0] for url in urls} == {"https://", ""}


def test_naive_moments_are_refused() -> None:
    """A moment without a zone is a mistake, not a guess."""
    with pytest.raises(ValueError, match="zone"):
        VENDOR.answer(70_000, datetime(2025, 6, 1))  # noqa: DTZ001 - the mistake under test


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"first_id": 0}, "first_id"),
        ({"calls_per_day": -1}, "calls_per_day"),
        ({"disorder": -1}, "disorder"),
        ({"missing_share": 1.5}, "missing_share"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../etc"}, "timezone"),
        ({"timezone": ""}, "timezone"),
    ],
)
def test_an_impossible_account_is_refused_in_one_line(options: dict[str, Any], name: str) -> None:
    """The message names the setting."""
    with pytest.raises(ValueError, match=rf"^{name} [^\n]*$"):
        Account(**options)
