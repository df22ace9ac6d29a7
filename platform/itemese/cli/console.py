"""What every job does around its one verb: log lines, and errors as one sentence."""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from itemese.core import progress
from itemese.core.errors import ConfigError, ItemeseError

_NOISY = ("ray", "ray.data", "ray.serve", "ray.tune", "ray.train", "httpx", "transformers")


def storage_default() -> str:
    """Return ``$ITEMESE_STORAGE``, else ``runs`` in the working folder."""
    return os.environ.get("ITEMESE_STORAGE", "runs")


def set_up() -> None:
    """Set up log lines, and quiet those of libraries; a set ITEMESE_QUIET quiets ours too."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[progress.LogLines()],
    )
    progress.show()
    if os.environ.get("ITEMESE_QUIET", "0") not in ("", "0"):
        be_quiet()
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")  # read when ray.data is imported


def be_quiet() -> None:
    """Keep bars and informational log lines off the screen; results, warnings and errors stay."""
    progress.hide()
    logging.getLogger().setLevel(logging.WARNING)


def run(job: Callable[..., None]) -> None:
    """Run a job's function as a command line.

    A fault that the user can fix ends with its sentence on standard error and exit status 2;
    anything else keeps its traceback, because it is a defect.
    """
    set_up()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(job)
    with sentences():
        app()


def screen_width() -> int | None:
    """Return the characters of a line of the terminal; None where output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def integers(text: str, option: str) -> list[int]:
    """Read ``"0,1,2"``.

    Raises:
        ConfigError: It is not a list of whole numbers that differ.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) < len(numbers):
        message = f"`{option}` must be different whole numbers; got {text!r}. Write 0,1,2."
        raise ConfigError(message)
    return numbers


def test_line(test: Mapping[str, Any], baseline: str) -> str:
    """Return one paired test as a line of text."""
    verdict = "significant" if test["significant"] else "not significant"
    return (
        f"{test['name']} - {baseline}: {test['metric']} {test['difference']:+.4f} "
        f"[{test['difference_low']:+.4f}, {test['difference_high']:+.4f}], "
        f"p (Holm) {test['p_holm']:.3g}, {verdict}"
    )


@contextmanager
def sentences() -> Iterator[None]:
    """Print an ItemeseError as its one sentence and exit with status 2."""
    try:
        yield
    except ItemeseError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
