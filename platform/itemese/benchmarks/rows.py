"""Rows of a benchmark's table."""

import logging
from typing import Any

_LOG = logging.getLogger(__name__)

Row = dict[str, Any]
"""``name``, ``value``, ``unit``, ``bar`` and ``holds``; the last two are None without a bar."""


def figure(
    name: str,
    value: float,
    unit: str,
    *,
    most: float | None = None,
    below: float | None = None,
    least: float | None = None,
) -> Row:
    """Return a figure beside its bar, if it has one.

    Args:
        name: What was measured.
        value: Of it.
        unit: Of the value; empty for a count or a yes (1) and no (0).
        most: It holds at this bar or lower.
        below: It holds under this bar, not at it.
        least: It holds at this bar or higher.
    """
    bar, holds = None, None
    if most is not None:
        bar, holds = most, bool(value <= most)
    elif below is not None:
        bar, holds = below, bool(value < below)
    elif least is not None:
        bar, holds = least, bool(value >= least)
    _LOG.info("%s: %.4g %s", name, value, unit)
    return {"name": name, "value": round(float(value), 4), "unit": unit, "bar": bar, "holds": holds}
