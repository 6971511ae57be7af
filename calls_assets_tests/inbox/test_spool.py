"""The spool: durable deliveries, requests of users, pauses, bounds."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls_assets.api import ContractError
from calls_assets.inbox import Inbox, is_due, join_ranges, parse_ids
from calls_assets.inbox.spool import KEPT_REJECTED, subtract_ranges
from calls_assets.lake import LocalStorage, open_storage
from calls_assets.settings import Location

NOW = datetime(2025, 6, 3, 12, 0, 0, 123456, tzinfo=UTC)
BODY = json.dumps({"id": 77, "startedDate": "2025-06-02T23:30:00-04:00", "waitingTime": 18}).encode()


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    """Gives an empty inbox."""
    return Inbox(LocalStorage(tmp_path))


@pytest.fixture
def any_inbox(place: Location) -> Inbox:
    """Gives an empty inbox in each kind of storage."""
    return Inbox(open_storage(place))


def test_only_its_owner_can_read_a_delivery(inbox: Inbox, tmp_path: Path) -> None:
    """It says what the vendor said about people."""
    assert (tmp_path / inbox.put(BODY, NOW).key).stat().st_mode & 0o777 == 0o600


def test_a_delivery_is_kept_until_it_is_settled(any_inbox: Inbox) -> None:
    """Its name tells call, start and reception."""
    inbox = any_inbox
    put = inbox.put(BODY, NOW)
    (found,) = inbox.deliveries()
    assert found == put
    assert (found.call_id, found.since, found.attempts) == (77, NOW, 0)
    assert found.day(ZoneInfo("UTC")) == date(2025, 6, 3)
    assert found.day(ZoneInfo("America/New_York")) == date(2025, 6, 2)
    assert inbox.read(found) == BODY
    inbox.settle(found)
    assert inbox.deliveries() == []


def test_what_waits_is_found_in_one_listing(any_inbox: Inbox) -> None:
    """Deliveries, then requests, as they are listed by themselves; what was put aside is not among them."""
    any_inbox.put(BODY, NOW)
    any_inbox.put(BODY, NOW)
    any_inbox.reject(b"{", NOW)
    any_inbox.enqueue([(5, 7)], NOW)
    deliveries, requests = any_inbox.deliveries(), any_inbox.requests()
    assert (len(deliveries), len(requests)) == (2, 1)
    assert any_inbox.waiting() == [*deliveries, *requests]


def test_equal_deliveries_are_two(any_inbox: Inbox) -> None:
    """Also within one microsecond: neither may overwrite the other."""
    any_inbox.put(BODY, NOW)
    any_inbox.put(BODY, NOW)
    assert len(any_inbox.deliveries()) == 2


def test_what_was_tried_in_vain_waits_ever_longer(inbox: Inbox) -> None:
    """A minute, four, sixteen …: measured from its reception."""
    inbox.put(BODY, NOW)
    expected = [timedelta(0), *(timedelta(minutes=4**power) for power in range(7))]
    for pause in expected:
        (item,) = inbox.deliveries()
        assert is_due(item, NOW + pause)
        assert not item.attempts or not is_due(item, NOW + pause - timedelta(seconds=1))
        inbox.postpone(item)
    (item,) = inbox.deliveries()
    assert item.attempts == len(expected)
    assert inbox.read(item) == BODY


def test_a_postponement_that_was_interrupted_counts_once(place: Location) -> None:
    """The new name is there before the old one goes; a second run finds either."""
    storage = open_storage(place)
    inbox = Inbox(storage)
    item = inbox.put(BODY, NOW)
    inbox.postpone(item)
    storage.put_new(item.key, BODY)
    inbox.postpone(item)
    assert [found.attempts for found in inbox.deliveries()] == [1]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"id": 0}', b'{"id": "x"}', b"[1]", b"\xff", b'{"id": true}'])
def test_a_delivery_that_names_no_call_is_refused(inbox: Inbox, body: bytes) -> None:
    """Nothing is stored."""
    with pytest.raises(ContractError):
        inbox.put(body, NOW)
    assert inbox.files() == []


def test_rejected_deliveries_are_kept_up_to_a_bound(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """And counted beyond it."""
    assert KEPT_REJECTED == 1_000
    monkeypatch.setattr("calls_assets.inbox.spool.KEPT_REJECTED", 3)
    for _ in range(5):
        inbox.reject(b"?", NOW)
    assert inbox.count_rejected() == 5
    assert inbox.files() == []


def test_enqueued_ids_are_kept_as_ranges_without_those_that_wait(inbox: Inbox) -> None:
    """Asking twice for the same costs nothing."""
    assert inbox.enqueue([(5, 10), (11, 11), (3, 3), (6, 7)], NOW) == 8
    (request,) = inbox.requests()
    assert (request.ranges, request.since) == (((3, 3), (5, 11)), NOW)
    assert list(request.ids()) == [3, 5, 6, 7, 8, 9, 10, 11]
    assert inbox.enqueue([(1, 12)], NOW) == 4
    assert {range_ for item in inbox.requests() for range_ in item.ranges} == {
        (3, 3),
        (5, 11),
        (1, 2),
        (4, 4),
        (12, 12),
    }
    assert inbox.enqueue([(1, 12)], NOW) == 0
    inbox.postpone(request)
    assert sorted(item.attempts for item in inbox.requests()) == [0, 1]


def test_ids_are_read_from_lines_and_bad_ones_reported() -> None:
    """Each bad entry with its line; the good ones are kept."""
    lines = ["call_id", "12, 15-17 # three", '"20"', "9-3", "abc", "", "-4", "99999999999999999999", "1e3"]
    ranges, bad = parse_ids(lines)
    assert ranges == [(12, 12), (15, 17), (20, 20)]
    assert [number for number, _ in bad] == [4, 5, 7, 8, 9]
    assert "write 3-9" in dict(bad)[4]


_RANGES = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)).map(lambda pair: (pair[0], pair[0] + pair[1])))


@given(_RANGES, _RANGES)
def test_ranges_are_sets_of_ids(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    """Joining and subtracting agree with sets."""

    def ids(ranges: list[tuple[int, int]]) -> set[int]:
        return {id_ for first, last in ranges for id_ in range(first, last + 1)}

    joined, taken = join_ranges(some), join_ranges(others)
    assert ids(joined) == ids(some)
    assert sum(last - first + 1 for first, last in joined) == len(ids(some))
    assert ids(subtract_ranges(joined, taken)) == ids(some) - ids(others)
