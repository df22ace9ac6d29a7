"""Chromium for tests of pages: where it is, and the marks of tests that need it."""

import shutil

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (or Google Chrome) on the PATH"),
]
NARROW, PHONE, DESKTOP = (
    {"width": 360, "height": 740},
    {"width": 390, "height": 844},
    {"width": 1280, "height": 900},
)
