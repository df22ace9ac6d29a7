"""Rows of a benchmark's table."""

import logging
from typing import Any

_LOG = logging.getLogger(__name__)

Row = dict[str, Any]
"""``name``, ``value``, ``unit``, ``bar`` and ``holds``; the last two are None without a bar."""


def figure(
    name: str, value: float, unit: str, *, most: float | None = None, least: float | None = None
) -> Row:
    """Return a figure beside the bar that it must not pass (`most`), or must reach (`least`)."""
    bar = most if most is not None else least
    holds = None if bar is None else bool(value <= bar if most is not None else value >= bar)
    _LOG.info("%s: %.4g %s", name, value, unit)
    return {"name": name, "value": round(float(value), 4), "unit": unit, "bar": bar, "holds": holds}
