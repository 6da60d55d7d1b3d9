"""Ctrl-C and SIGTERM end a bench as KeyboardInterrupt, so that whatever it started is ended too."""

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Result = TypeVar("Result")


def handle_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def run(measuring: Coroutine[Any, Any, Result]) -> Result:
    """Run the event loop, where a signal may only cancel: an exception amid a callback of the loop could get lost."""

    async def main() -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in SIGNALS:
            loop.add_signal_handler(number, task.cancel)
        return await measuring

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        _interrupt()
        raise
    finally:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            handle_signals()


def _interrupt(_number: int | None = None, _frame: FrameType | None = None) -> None:
    # Once: the clean-up that follows is not to be interrupted itself.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
