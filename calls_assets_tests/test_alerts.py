"""Delivery of alerts: real HTTP, bounded time, and an address that shows nowhere."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator

import pytest

from calls_assets import alerts
from calls_assets.alerts import AlertError, post_alert
from calls_assets_tests.faults.canaries import listening
from calls_assets_tests.receiver import SECRET, Receiver, receiving

BODY = {"text": "a run failed"}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Gives a receiver, and a sender that does not pause."""
    monkeypatch.setattr(alerts, "PAUSE_SECONDS", 0.0)
    with receiving() as running:
        yield running


@pytest.mark.parametrize("body", [BODY, {"text": "of a path that is no text: \udcff"}])
def test_an_alert_is_delivered_once(body: dict[str, object], receiver: Receiver) -> None:
    """The body as JSON, whatever it says."""
    post_alert(receiver.url, body)
    assert receiver.heard == [body]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(receiver: Receiver, status: int) -> None:
    """Two refusals, then a success."""
    receiver.statuses = [status, status]
    post_alert(receiver.url, BODY)
    assert receiver.heard == [BODY] * 3


@pytest.mark.parametrize(
    ("statuses", "attempts", "words"),
    [
        ([503] * 9, 3, "answered with status 503, 3 times"),
        ([404], 1, "answered with status 404"),
        ([307], 1, "answered with status 307"),
    ],
)
def test_a_receiver_that_refuses_is_an_error(
    receiver: Receiver, statuses: list[int], attempts: int, words: str
) -> None:
    """At most three attempts; what cannot pass is not tried again, and redirects are not followed."""
    receiver.statuses = statuses
    with pytest.raises(AlertError, match=words):
        post_alert(receiver.url, BODY)
    assert len(receiver.heard) == attempts


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://h\\x/SECRET", r"could not be reached \(\w+\), 3 times"),
        ("https://xn--a.com/SECRET", "a host or port that cannot be"),
        ("https://[::1]x/SECRET", "a host or port that cannot be"),
    ],
)
def test_an_address_that_is_none_is_an_error_that_does_not_name_it(url: str, words: str) -> None:
    """Settings take what looks like one."""
    with pytest.raises(AlertError, match=words) as caught:
        post_alert(url, BODY)
    assert "SECRET" not in str(caught.value)


def test_a_receiver_that_hangs_is_left(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt has a deadline."""
    monkeypatch.setattr(alerts, "ATTEMPT_SECONDS", 0.2)
    receiver.delay_seconds = 5.0
    begun = time.monotonic()
    with pytest.raises(AlertError, match=r"did not answer within 0\.2 s, 3 times"):
        post_alert(receiver.url, BODY)
    assert time.monotonic() - begun < 3


def test_five_alerts_fit_into_the_minute_of_a_tick() -> None:
    """Dagster hands up to five runs to a tick, and cuts it at sixty seconds."""
    pauses = sum(alerts.PAUSE_SECONDS * attempt for attempt in range(alerts.ATTEMPTS))
    assert 5 * (alerts.ATTEMPTS * alerts.ATTEMPT_SECONDS + pauses) <= 50


def test_the_address_is_in_no_log_and_no_error(receiver: Receiver, capfd: pytest.CaptureFixture[str]) -> None:
    """All loggers at DEBUG: a success, a refusal, a receiver that is not there."""
    shown = []
    with listening() as listener:
        post_alert(receiver.url, BODY)
        receiver.statuses = [503] * 3
        for url in (
            receiver.url,
            f"http://127.0.0.1:9/{SECRET}?{SECRET}",
            f"https://127.0.0.1:9/{SECRET}",
        ):
            with pytest.raises(AlertError) as caught:
                post_alert(url, BODY)
            shown += [repr(caught.value), *traceback.format_exception(caught.value)]
    printed = capfd.readouterr()
    ours = [line for line in listener.lines if not line.startswith("uvicorn.")]  # what the receiver itself logs
    everything = [*shown, *ours, printed.out, printed.err]
    assert [text for text in everything if SECRET in text] == []
    assert len(shown) > 4
