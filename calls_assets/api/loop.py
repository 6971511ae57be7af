"""The event loop of a sweep: uvloop where it is installed, else asyncio's own.

uvloop only reports what a signal handler raises, unless it is KeyboardInterrupt or SystemExit, and goes on; Dagster
ends a run with an exception of its own. Here it ends the work, as with asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def run(work: Coroutine[Any, Any, _T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> _T:
    """Runs a coroutine to its end, as `asyncio.run` does.

    Args:
        work: The coroutine.
        loop_factory: What makes the loop; uvloop's, else asyncio's, when None.

    Raises:
        BaseException: What the work raises; what a signal handler raises, after the work was cancelled.
    """
    interrupts: list[BaseException] = []

    async def work_interruptibly() -> _T:
        task = asyncio.current_task()

        def take(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            problem = context.get("exception")
            if problem is None or isinstance(problem, Exception):
                loop.default_exception_handler(context)
            elif task is not None:
                interrupts.append(problem)
                task.cancel()

        asyncio.get_running_loop().set_exception_handler(take)
        return await work

    try:
        with asyncio.Runner(loop_factory=loop_factory or _find_factory()) as runner:
            return runner.run(work_interruptibly())
    except asyncio.CancelledError:
        if interrupts:
            raise interrupts[0] from None
        raise


def _find_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on every system, and only where a sweep runs
    except ImportError:
        return None
    return uvloop.new_event_loop
