"""What the command line prints beside results: log lines and bars."""

import io
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from rich.console import Console

from itemese.cli import console
from itemese.cli import main as command_line
from itemese.core import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Puts the log level back, and hides bars."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)
    progress.hide()


def as_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Replace standard error; called in the test, as pytest replaces it after fixtures."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def work() -> None:
    with progress.bar("steps", 2) as advance:
        advance(2)


@pytest.mark.parametrize("how", ["-q", "--quiet", "ITEMESE_QUIET"])
def test_quiet_shows_neither_bars_nor_log_lines(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    logging.getLogger().setLevel(logging.INFO)
    if how.startswith("-"):
        monkeypatch.setattr(sys, "argv", ["itemese", how, "schema", "seed"])
    else:
        monkeypatch.setenv(how, "1")
        monkeypatch.setattr(sys, "argv", ["itemese", "schema", "seed"])
    with pytest.raises(SystemExit) as end:
        command_line.run()
    assert not end.value.code
    work()
    assert terminal.getvalue() == ""
    log = logging.getLogger("itemese.some")
    assert not log.isEnabledFor(logging.INFO)
    assert log.isEnabledFor(logging.WARNING)


def test_a_terminal_gets_bars_and_a_file_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    monkeypatch.delenv("ITEMESE_QUIET", raising=False)
    console.set_up()
    work()
    assert terminal.getvalue(), "a display was started"
    progress.hide()
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plain)
    console.set_up()
    work()
    assert plain.getvalue() == ""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_bar_fits_the_terminal(columns: int) -> None:
    stream = io.StringIO()
    shown = Console(file=stream, force_terminal=True, color_system=None, width=columns)
    live = progress._progress(shown)
    live.add_task("embeddings", total=3_400_000, completed=1_200_000)
    shown.print(live.get_renderable())
    (line,) = stream.getvalue().splitlines()
    assert len(line) <= columns
    assert "embeddings" in line
    assert "1200000/3400000" in line


def test_no_line_of_the_cluster_says_that_an_ended_replica_failed() -> None:
    code = """
import itemese.cli
from ray._private.ray_logging import stderr_deduplicator as found

lines = ["Task ServeReplica.perform_graceful_shutdown failed.", "Task other failed."]
batch = {"ip": "", "pid": "raylet", "job": "", "is_err": True, "lines": lines}
print([line for part in found.deduplicate(batch) for line in part["lines"]])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['Task other failed.']"
