"""The webhook: bodies that agree with the by-id answers, quirks in their shares, and deliveries that arrive."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calls_assets.api import decode_event
from calls_assets.simulator import Account, SettableClock, Vendor, Webhook, create_app, run_from_arguments, serve
from calls_assets.simulator.story import LONGEST_SECONDS
from calls_assets.simulator.webhook import deliveries_between, delivery
from calls_assets_tests.simulator.test_server import _RUN, _parse

TUESDAY = date(2025, 5, 13)
NOON = datetime(2025, 5, 13, 16, tzinfo=UTC)
LONG_AFTER = datetime(2025, 6, 30, tzinfo=UTC)
VENDOR = Vendor(Account())
CLEAN = Vendor(Account(quirk_share=0))
KEYS = [
    *("id", "type", "call_type", "duration", "talkTime", "waitingTime", "startedDate", "endedDate", "tags", "contact"),
    *("agents", "number", "call_recordings", "campaign", "abandoned", "disposition", "external_numbers"),
    "transfer_details",
]


@cache
def pairs() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each existing call of a day: its answer long after, its delivery."""
    found = ((CLEAN.answer(call_id, LONG_AFTER), delivery(CLEAN, call_id)) for call_id in CLEAN.ids_of_day(TUESDAY))
    return [(answer, body) for answer, body in found if answer is not None and body is not None]


def test_a_delivery_has_the_observed_keys() -> None:
    """In one order, and in each object too."""
    contacts = [body["contact"] for _, body in pairs() if body["contact"] is not None]
    assert {type(contact["firstName"]) for contact in contacts} == {str, type(None)}  # some are named later
    assert {tuple(body) for _, body in pairs()} == {tuple(KEYS)}
    assert {tuple(contact) for contact in contacts} == {
        ("id", "firstName", "lastName", "email", "phone", "createDate", "additionalFields")
    }
    assert {tuple(body["number"]) for _, body in pairs()} == {("id", "number", "alias")}
    assert {tuple(body["disposition"]) for _, body in pairs()} == {("code", "note")}


def test_a_delivery_agrees_with_the_answer_by_id() -> None:
    """What both say of a call is the same; what one of them knows earlier is part of what the other says later."""
    for answer, body in pairs():
        contact, number = answer["contact"], answer["number"]
        assert body["id"] == answer["id"]
        assert body["type"] == ("inbound" if answer["is_inbound"] else "outbound")
        assert body["call_type"] == answer["type"]
        assert (body["call_type"] == "answered") == answer["is_answered"]
        assert (body["duration"], body["talkTime"]) == (answer["duration"], answer["talk_time"])
        assert datetime.fromisoformat(body["startedDate"]).timestamp() == answer["started_at"]
        assert body["campaign"] == (answer["campaign"]["name"] if answer["campaign"] else "")
        assert body["number"] == {key: number[key] for key in ("id", "number", "alias")}
        assert body["external_numbers"] == answer["external_numbers"]
        assert len(body["transfer_details"]) == sum(leg["is_any_transfer"] for leg in answer["all_agents"])
        assert set(body["tags"]) <= set(answer["tags"])
        urls = {recording["url"] for recording in answer["recordings"]}
        assert {"https://" + url.removeprefix("https://") for url in body["call_recordings"]} <= urls
        code = body["disposition"]["code"]
        assert code in {"", answer["disposition"]["code"] if answer["disposition"] else ""}
        assert (body["contact"] is None) == (contact is None)
        if contact is not None:
            assert (body["contact"]["id"], body["contact"]["phone"]) == (contact["id"], contact["number"])
            if body["contact"]["firstName"] is not None:
                assert f"{body['contact']['firstName']} {body['contact']['lastName']}" == contact["full_name"]
        if isinstance(body["agents"], list):
            legs = [(leg["id"], leg["alias"]) for leg in answer["all_agents"]]
            assert [(agent["id"], agent["name"]) for agent in body["agents"]] == legs


def test_the_end_is_start_wait_and_duration_but_for_two_seconds() -> None:
    """By 0, 1 or 2 s; and the call has ended in the by-id answer then, not a second before."""
    seen = Counter[float]()
    for answer, body in pairs():
        start, end = (datetime.fromisoformat(body[key]) for key in ("startedDate", "endedDate"))
        assert end.utcoffset() == timedelta(hours=-4)
        seen[(end - start).total_seconds() - body["waitingTime"] - body["duration"]] += 1
        if end - start > timedelta(minutes=20):  # late ones can be read
            at_the_end, before = CLEAN.answer(answer["id"], end), CLEAN.answer(answer["id"], end - timedelta(seconds=1))
            assert at_the_end is not None
            assert before is not None
            assert (before["is_ended"], at_the_end["is_ended"]) == (False, True)
    assert set(seen) == {0, 1, 2}


def test_only_unanswered_inbound_calls_are_abandoned() -> None:
    """And some are."""
    abandoned = [answer for answer, body in pairs() if body["abandoned"]]
    assert {body["abandoned"] for _, body in pairs()} == {0, 1}
    assert {(answer["is_inbound"], answer["is_answered"], answer["type"]) for answer in abandoned} == {
        (True, False, "abandoned")
    }


def test_the_project_reads_every_delivery() -> None:
    """Start, end, wait and abandonment arrive as they were meant."""
    for _, body in pairs():
        event = decode_event(json.dumps(body).encode())
        assert event.call_id == body["id"]
        assert event.started_at == datetime.fromisoformat(body["startedDate"])
        assert event.ended_at == datetime.fromisoformat(body["endedDate"])
        assert event.waiting_seconds == body["waitingTime"]
        assert event.is_abandoned == bool(body["abandoned"])


def test_dates_have_the_offset_of_their_season() -> None:
    """Winter's and summer's."""
    vendor = Vendor(Account(first_day=date(2025, 1, 1), missing_share=0))
    winter = delivery(vendor, vendor.ids_of_day(date(2025, 2, 4))[500])
    summer = delivery(vendor, vendor.ids_of_day(date(2025, 7, 1))[500])
    assert winter is not None
    assert summer is not None
    assert (winter["startedDate"][-6:], summer["startedDate"][-6:]) == ("-05:00", "-04:00")


def test_agents_and_addresses_come_in_the_observed_forms() -> None:
    """Mostly a list, sometimes one object or a bare value; addresses with and without a scheme."""
    forms = Counter(type(body["agents"]).__name__ for _, body in pairs())
    assert forms["list"] > 0.85 * len(pairs())
    assert set(forms) >= {"list", "dict", "int"}
    urls = [url for _, body in pairs() for url in body["call_recordings"]]
    assert {url.startswith("https://") for url in urls} == {True, False}
    assert any(body["disposition"]["code"] for _, body in pairs())
    assert any(body["campaign"] == "" for _, body in pairs())


def test_missing_ids_have_no_delivery() -> None:
    """Neither by id nor in a span; every other call has one in the end."""
    ids = VENDOR.ids_of_day(TUESDAY)
    missing = {call_id for call_id in ids if VENDOR.is_missing(call_id)}
    assert missing
    assert all(delivery(VENDOR, call_id) is None for call_id in missing)
    posted = {
        call_id
        for _, call_id, _ in deliveries_between(VENDOR, NOON - timedelta(days=1), NOON + timedelta(days=1, hours=2))
    }
    assert posted & set(ids) == set(ids) - missing
    assert delivery(VENDOR, 1) is None


def test_no_call_lasts_longer_than_the_search_looks_back() -> None:
    """Over several weeks of calls."""
    stories = (CLEAN.tell(call_id) for call_id in range(65_123, 95_123))
    assert all(story.ends - story.starts <= LONGEST_SECONDS for story in stories if story is not None)


@given(minutes=st.integers(-60, 60 * 24 * 30), first=st.floats(0, 7_200), second=st.floats(0, 7_200))
@settings(max_examples=60, deadline=None)
def test_spans_that_touch_share_nothing_and_leave_nothing_out(minutes: int, first: float, second: float) -> None:
    """Deliveries of [a, b) and [b, c) are those of [a, c); a vendor that is new gives the same."""
    since = datetime(2025, 5, 1, 4, tzinfo=UTC) + timedelta(minutes=minutes)
    middle = since + timedelta(seconds=first)
    until = middle + timedelta(seconds=second)
    whole = deliveries_between(VENDOR, since, until)
    parts = [*deliveries_between(VENDOR, since, middle), *deliveries_between(Vendor(Account()), middle, until)]
    assert parts == whole
    assert all(since <= moment < until for moment, _, _ in whole)


def test_a_boundary_at_a_delivery_belongs_to_the_later_span() -> None:
    """Exactly once."""
    whole = deliveries_between(VENDOR, NOON, NOON + timedelta(minutes=30))
    for boundary, _, _ in whole:
        before = deliveries_between(VENDOR, NOON, boundary)
        after = deliveries_between(VENDOR, boundary, NOON + timedelta(minutes=30))
        assert before + after == whole
        assert after[0][0] == boundary


def test_nothing_is_posted_before_the_account_begins_or_without_calls() -> None:
    """And an account without calls has none at all."""
    assert deliveries_between(VENDOR, datetime(2025, 4, 1, tzinfo=UTC), datetime(2025, 5, 1, 3, tzinfo=UTC)) == []
    assert deliveries_between(Vendor(Account(calls_per_day=0)), NOON, NOON + timedelta(days=1)) == []
    with pytest.raises(ValueError, match="zone"):
        deliveries_between(VENDOR, NOON.replace(tzinfo=None), NOON)


def _delays(repeat_share: float, late_share: float) -> list[list[float]]:
    """Of each call that ended on two days: seconds from its end to each of its deliveries."""
    until = NOON + timedelta(days=2)
    delays: dict[int, list[float]] = {}
    for moment, call_id, body in deliveries_between(
        VENDOR, NOON, until + timedelta(minutes=30), repeat_share=repeat_share, late_share=late_share
    ):
        ended = datetime.fromisoformat(body["endedDate"])
        if NOON <= ended < until:
            delays.setdefault(call_id, []).append((moment - ended).total_seconds())
    return list(delays.values())


def test_some_deliveries_are_late_and_some_are_repeated() -> None:
    """About a twentieth each; nearly all others are there within seconds."""
    delays = _delays(0.05, 0.05)
    assert len(delays) > 3_000
    assert {len(moments) for moments in delays} == {1, 2}
    assert 0.035 < sum(len(moments) == 2 for moments in delays) / len(delays) < 0.065
    assert 0.035 < sum(moments[0] > 4 for moments in delays) / len(delays) < 0.065


def test_the_shares_can_be_set_to_none_and_all() -> None:
    """Late is seconds to 10 minutes; so is the pause before a repetition."""
    punctual, late, twice = _delays(0, 0), _delays(0, 1), _delays(1, 0)
    assert all(len(moments) == 1 and 0 <= moments[0] < 4 for moments in punctual)
    assert all(len(moments) == 1 for moments in late)
    assert 5 <= min(moments[0] for moments in late) < 15
    assert 560 < max(moments[0] for moments in late) < 604
    assert all(len(moments) == 2 for moments in twice)
    pauses = [second - first for first, second in twice]
    assert 1 <= min(pauses) < 2
    assert 560 < max(pauses) <= 600
    assert len(punctual) == len(late) == len(twice)


def test_the_order_is_shuffled_a_little() -> None:
    """Punctual deliveries are not all in the order of their ends, though each is within seconds."""
    ends = [
        datetime.fromisoformat(body["endedDate"])
        for _, _, body in deliveries_between(VENDOR, NOON, NOON + timedelta(hours=4), late_share=0, repeat_share=0)
    ]
    assert ends != sorted(ends)


def test_changing_a_body_changes_no_later_one() -> None:
    """Bodies share no lists or dicts."""
    for call_id in VENDOR.ids_of_day(TUESDAY)[:200]:
        body = delivery(VENDOR, call_id)
        before = json.dumps(body)
        if body is not None:
            for value in body.values():
                if isinstance(value, list | dict):
                    value.clear()
        assert json.dumps(delivery(VENDOR, call_id)) == before


class Receiver:
    """Takes deliveries, as a customer would.

    Args:
        refusals: How many posts of each call it answers 503 first.
    """

    def __init__(self, refusals: int = 0) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.posts = Counter[int]()
        self._refusals = refusals
        self.app = Starlette(routes=[Route("/hooks/s3cret", self._receive, methods=["POST"])])

    async def _receive(self, request: Request) -> Response:
        body = await request.json()
        self.posts[body["id"]] += 1
        if self.posts[body["id"]] <= self._refusals:
            return Response(status_code=503)
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        return Response(status_code=200)

    def ids(self) -> Counter[int]:
        """How often each call was accepted."""
        return Counter(body["id"] for body in list(self.bodies))


@contextmanager
def _simulate(clock: SettableClock, webhook: Webhook) -> Iterator[Callable[[], dict[str, int]]]:
    """Runs a simulator that posts; gives what asks for its counts of deliveries."""
    app = create_app(VENDOR, token="t", clock=clock, webhook=webhook)
    with serve(app) as server, httpx.Client(base_url=server.url, trust_env=False) as client:

        def ask_counts() -> dict[str, int]:
            counts: dict[str, int] = client.get("/stats").raise_for_status().json()["deliveries"]
            return counts

        ask_counts()  # it answers: from now on its clock is watched
        yield ask_counts


def _wait_until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_every_call_that_ends_on_a_fast_clock_arrives_with_its_repetitions() -> None:
    """An hour of calls in some seconds, each as the pure function says, with the header and the simulator's name."""
    receiver = Receiver()
    clock = SettableClock(NOON, speed=1_800)
    with serve(receiver.app) as target:
        webhook = Webhook(
            url=target.url + "/hooks/s3cret", headers=(("X-Webhook-Secret", "k3y"),), repeat_share=0.2, late_share=0.2
        )
        with _simulate(clock, webhook):
            since = clock()
            until = since + timedelta(hours=1)
            expected = deliveries_between(VENDOR, since, until, repeat_share=0.2, late_share=0.2)
            wanted = Counter(call_id for _, call_id, _ in expected)
            assert max(wanted.values()) == 2
            _wait_until(lambda: receiver.ids() >= wanted)
            now = clock()
    assert len(wanted) > 50
    assert all(body == delivery(VENDOR, body["id"]) for body in receiver.bodies)
    assert all(datetime.fromisoformat(body["endedDate"]) <= now for body in receiver.bodies)
    assert {headers["x-webhook-secret"] for headers in receiver.headers} == {"k3y"}
    assert {headers["content-type"] for headers in receiver.headers} == {"application/json"}
    assert {headers["x-simulator"] for headers in receiver.headers} == {"calls-assets"}
    assert all("simulator" in headers["user-agent"] for headers in receiver.headers)


def test_a_clock_that_leaps_skips_nothing_and_repeats_nothing_of_its_own() -> None:
    """Exactly the span's deliveries, counted in /stats; nothing while the clock stands."""
    receiver = Receiver()
    clock = SettableClock(NOON)
    with serve(receiver.app) as target, _simulate(clock, Webhook(url=target.url + "/hooks/s3cret")) as ask_counts:
        clock.advance(timedelta(hours=1))
        expected = deliveries_between(VENDOR, NOON, NOON + timedelta(hours=1))
        _wait_until(lambda: ask_counts()["posted"] >= len(expected))
        time.sleep(0.7)
        wanted = Counter(call_id for _, call_id, _ in expected)
        repeated = len(expected) - len(wanted)
        assert repeated
        assert receiver.ids() == wanted
        assert ask_counts() == {"posted": len(expected), "repeated": repeated, "failed": 0}


def test_a_refused_post_is_tried_three_times_more() -> None:
    """Then it has arrived, once each."""
    receiver = Receiver(refusals=3)
    clock = SettableClock(NOON)
    with serve(receiver.app) as target:
        webhook = Webhook(url=target.url + "/hooks/s3cret", repeat_share=0, retry_seconds=(0.01, 0.01, 0.01))
        with _simulate(clock, webhook) as ask_counts:
            clock.advance(timedelta(minutes=20))
            expected = deliveries_between(VENDOR, NOON, clock(), repeat_share=0)
            _wait_until(lambda: ask_counts()["posted"] == len(expected))
            assert ask_counts() == {"posted": len(expected), "repeated": 0, "failed": 0}
    assert receiver.posts == Counter({call_id: 4 for _, call_id, _ in expected})


def test_a_receiver_that_is_not_there_costs_the_deliveries_not_the_simulator() -> None:
    """They are counted as failed; the next ones are tried all the same."""
    with serve(Receiver().app) as target:
        url = target.url  # nobody listens there any more
    clock = SettableClock(NOON)
    with _simulate(clock, Webhook(url=url, retry_seconds=(0.01, 0.01, 0.01))) as ask_counts:

        def all_failed() -> bool:
            expected = len(deliveries_between(VENDOR, NOON, clock()))
            return ask_counts() == {"posted": 0, "repeated": 0, "failed": expected}

        for _ in range(2):
            clock.advance(timedelta(minutes=10))
            _wait_until(all_failed)


def test_the_command_posts_and_never_prints_the_secret_of_the_address() -> None:
    """Neither path nor password nor header are in what it prints; it stops on an interrupt."""
    receiver = Receiver()
    with serve(receiver.app) as target:
        url = f"http://someone:passw0rd@127.0.0.1:{target.port}/hooks/s3cret?key=qu3ry"
        words = ["--port", "0", "--now", "2025-05-13T12:00", "--speed", "1800", "--first-day", "2025-05-01"]
        words += ["--webhook", url, "--webhook-header", "X-Webhook-Secret: k3y", "--webhook-repeat-share", "0"]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _RUN, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        with process:
            _wait_until(lambda: len(receiver.bodies) > 20 or process.poll() is not None)
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
    assert f"simulated webhook deliveries go to http://127.0.0.1:{target.port}/… as calls end" in printed
    assert not re.search("s3cret|passw0rd|qu3ry|k3y", printed)
    assert len(receiver.bodies) > 20
    assert {headers["x-webhook-secret"] for headers in receiver.headers} == {"k3y"}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--webhook", "not-an-address-s3cret"), "webhook"),
        (("--webhook", "ftp://example.com/s3cret"), "webhook"),
        (("--webhook", "http://example..com/s3cret"), "webhook"),
        (("--webhook", "http://example.com:70000/s3cret"), "webhook"),
        (("--webhook", "http://example.com\n/s3cret"), "webhook"),
        (("--webhook-header", "X: s3cret"), "webhook-header"),
        (("--webhook", "http://example.com", "--webhook-header", "s3cret"), "webhook-header"),
        (("--webhook", "http://example.com", "--webhook-header", ": s3cret"), "webhook-header"),
        (("--webhook", "http://example.com", "--webhook-header", "X: s3cret\r\nY: z"), "webhook-header"),
        (("--webhook", "http://example.com", "--webhook-late-share", "2"), "webhook-late-share"),
        (("--webhook", "http://example.com", "--webhook-repeat-share", "-1"), "webhook-repeat-share"),
    ],
)
def test_a_wrong_webhook_is_one_clear_line(
    words: tuple[str, ...], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Naming the option, without its value."""
    assert run_from_arguments(_parse("--port", "0", *words)) == 2
    printed = capsys.readouterr().err
    assert re.fullmatch(rf"calls-assets simulate: {name} [^\n]+\n", printed)
    assert "s3cret" not in printed


def test_an_address_does_not_show_in_a_representation() -> None:
    """Nor do the headers."""
    webhook = Webhook(url="http://example.com/s3cret", headers=(("X-Webhook-Secret", "k3y"),))
    assert not re.search("s3cret|k3y", repr(webhook))
    assert (webhook.masked_url, Webhook(url="http://example.com").masked_url) == (
        "http://example.com/…",
        "http://example.com/",
    )
