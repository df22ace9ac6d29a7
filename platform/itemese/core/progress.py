"""Bars for work that takes long, on a terminal; nothing where output is no terminal.

The command line calls `show`; without it every bar is silent, as in workers and notebooks.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Count(MofNCompleteColumn):
    """Units done, of a known total."""

    def render(self, task: Task) -> Text:
        """Return nothing where the total is not known."""
        return Text() if task.total is None else super().render(task)


Advance = Callable[[int], None]

_live: Progress | None = None
_open = 0


def show() -> bool:
    """Show bars from now on, if standard error is a terminal; return whether it is."""
    global _live
    if not sys.stderr.isatty():
        return False
    _live = _progress(Console(stderr=True))
    return True


def hide() -> None:
    """Show no bars from now on."""
    global _live
    _live = None


def _progress(console: Console) -> Progress:
    """Return a display whose lines fit a console of 60 columns."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=min(24, console.width // 5)),
        _Count(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


@contextmanager
def bar(label: str, total: int | None = None) -> Iterator[Advance]:
    """Show a bar while the block runs.

    Args:
        label: What is done.
        total: Units of it; None shows that it works, and for how long.

    Yields:
        A function that advances the bar by so many units.
    """
    global _open
    live = _live
    if live is None:
        yield lambda count: None
        return
    if _open == 0:
        live.start()
    _open += 1
    task = live.add_task(label, total=total)
    try:
        yield lambda count: live.advance(task, count)
    finally:
        live.remove_task(task)
        _open -= 1
        if _open == 0:
            live.stop()


class LogLines(logging.StreamHandler[Any]):
    """Writes to what standard error is at the moment, which a bar replaces to stay below lines."""

    @property
    def stream(self) -> Any:
        """Standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        """Ignore what the base class sets."""
