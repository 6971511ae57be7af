"""The event loop: results, errors, and interrupts as Dagster raises them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
import uvloop

from calls_assets.api.loop import run

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
Factory = Callable[[], asyncio.AbstractEventLoop]


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


def test_it_gives_the_result_on_uvloop() -> None:
    """Without being told."""

    async def work() -> type:
        return type(asyncio.get_running_loop())

    assert run(work()) is uvloop.Loop


@pytest.mark.parametrize("factory", LOOPS)
def test_errors_of_the_work_come_out(factory: Factory) -> None:
    """As they are, cancellation included."""

    async def work(problem: BaseException) -> None:
        raise problem

    for problem in (ValueError("wrong"), asyncio.CancelledError()):
        with pytest.raises(type(problem)):
            run(work(problem), loop_factory=factory)


@pytest.mark.timeout(20)
@pytest.mark.usefixtures("raising_handler")
@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("is_busy", [False, True])
def test_an_interrupt_ends_the_work_and_lets_it_clean_up(factory: Factory, *, is_busy: bool) -> None:
    """While the loop waits, and while it runs callbacks all the time."""
    done: list[str] = []

    async def work() -> None:
        try:
            while True:  # noqa: ASYNC110 - the point is to be in it
                await asyncio.sleep(0 if is_busy else 60)
        finally:
            await asyncio.sleep(0.01)
            done.append("landed")

    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(InterruptError):
        run(work(), loop_factory=factory)
    timer.join()
    assert done == ["landed"]


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
