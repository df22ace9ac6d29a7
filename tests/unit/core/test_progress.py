"""Bars on a terminal, and none elsewhere."""

import io
import logging
import re
import sys
import time

import pytest

from itemese.core import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain(terminal: Terminal) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())


def test_without_a_terminal_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert not progress.show()
    with progress.bar("steps", 3) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_bars_and_log_lines_above_them(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_live", None)
    monkeypatch.setenv("TERM", "xterm")
    log = logging.Logger("lines")
    log.addHandler(progress.LogLines())
    assert progress.show()
    with progress.bar("training") as _, progress.bar("steps", 4) as advance:
        advance(3)
        deadline = time.monotonic() + 20
        while "3/4" not in plain(terminal) and time.monotonic() < deadline:
            time.sleep(0.05)  # bars are drawn ten times a second
        log.warning("epoch 1 done")
    shown = plain(terminal)
    assert "training" in shown
    assert "3/4" in shown
    assert "epoch 1 done\n" in shown
    before = len(terminal.getvalue())
    log.warning("afterwards")
    assert terminal.getvalue()[before:] == "afterwards\n"
