"""The event loop of a sweep, and how it ends when the run is told to.

Dagster's signal handlers raise. An exception that a handler raises inside an event loop is lost where a callback runs:
asyncio only reports it, and the work goes on, or waits for ever. Here a signal cancels the work; the handler that was
there before is called when the work has cleaned up.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

_T = TypeVar("_T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Runs a coroutine to its end, as `asyncio.run` does.

    Args:
        work: The coroutine. SIGINT and SIGTERM cancel it, each time they come, where they have a handler in Python and
            this is the main thread.

    Raises:
        BaseException: What the work raises; what the former handler of a signal that came raises.
    """
    came: list[int] = []
    former: dict[int, Callable[[int, FrameType | None], Any]] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        former = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            task = loop.create_task(work)

            def interrupt(number: int, _: FrameType | None) -> None:
                came.append(number)
                with suppress(RuntimeError):  # the loop is closed: the work has ended
                    loop.call_soon_threadsafe(task.cancel)

            # Handlers change while the loop stands still: from first step to last it must not meet one that raises.
            for number in former:
                signal.signal(number, interrupt)
            return loop.run_until_complete(task)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if came:
            former[came[0]](came[0], None)
