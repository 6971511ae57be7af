"""The event loop: results, errors, and interrupts as Dagster raises them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from calls_assets.api.loop import run


class InterruptError(BaseException):
    """What Dagster's handler raises is no `Exception` either."""


@pytest.fixture
def raising_handler() -> Iterator[None]:
    """Has SIGTERM raise an exception in the main thread, as a run worker does."""

    def handle(*_: object) -> None:
        raise InterruptError

    before = signal.signal(signal.SIGTERM, handle)
    yield
    signal.signal(signal.SIGTERM, before)


def test_errors_of_the_work_come_out() -> None:
    """As they are, cancellation included."""

    async def work(problem: BaseException) -> None:
        raise problem

    for problem in (ValueError("wrong"), asyncio.CancelledError()):
        with pytest.raises(type(problem)):
            run(work(problem))


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("raising_handler")
@pytest.mark.parametrize("state", ["waits", "runs its own code", "runs callbacks"])
def test_an_interrupt_ends_the_work_and_lets_it_clean_up(state: str) -> None:
    """Wherever it comes: thirty times, because a handler that raises was lost once in a few."""
    for _ in range(30):
        done: list[str] = []
        timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGTERM))

        async def work(done: list[str] = done, timer: threading.Timer = timer) -> None:
            loop = asyncio.get_running_loop()

            def call_again() -> None:
                time.sleep(0.0005)
                loop.call_soon(call_again)

            timer.start()
            if state == "runs callbacks":
                call_again()
            try:
                while True:  # noqa: ASYNC110 - the point is to be in it
                    await asyncio.sleep(0 if state == "runs its own code" else 60)
            finally:
                await asyncio.sleep(0.01)
                done.append("landed")

        with pytest.raises(InterruptError):
            run(work())
        timer.join()
        assert done == ["landed"]


@pytest.mark.usefixtures("raising_handler")
def test_an_interrupt_before_the_work_begins_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop runs already, the work does not yet."""
    reached: list[str] = []

    def make(make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> asyncio.AbstractEventLoop:
        loop = make_loop()
        loop.call_soon(os.kill, os.getpid(), signal.SIGTERM)
        return loop

    monkeypatch.setattr("asyncio.events.new_event_loop", make)

    async def work() -> None:
        await asyncio.sleep(3)
        reached.append("the end")

    with pytest.raises(InterruptError):
        run(work())
    assert reached == []


@pytest.mark.usefixtures("raising_handler")
def test_an_interrupt_at_the_very_end_is_not_lost() -> None:
    """The work is done, and the run ends all the same."""

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptError):
        run(work())


@pytest.mark.usefixtures("raising_handler")
def test_handlers_are_as_before_and_left_alone_in_other_threads() -> None:
    """Signals concern the main thread only; one without a handler in Python keeps what it does."""
    interrupted = signal.signal(signal.SIGINT, signal.SIG_DFL)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    seen: list[object] = []

    async def work() -> None:
        seen.extend(signal.getsignal(number) for number in before)

    run(work())
    assert seen[0] == signal.SIG_DFL
    assert seen[1] is not before[signal.SIGTERM]
    thread = threading.Thread(target=lambda: run(work()))
    thread.start()
    thread.join()
    assert seen[2:] == list(before.values()) == [signal.getsignal(number) for number in before]
    signal.signal(signal.SIGINT, interrupted)


def test_what_the_loop_only_reports_is_still_reported(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An error of a callback does not end the work."""

    async def work() -> int:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.01)
        return 7

    assert run(work()) == 7
    assert "ZeroDivisionError" in caplog.text + capfd.readouterr().err
