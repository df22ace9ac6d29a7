"""Read result dicts, and refuse to set two side by side that answered different questions.

Two figures may stand in one table only if data, split and protocol agree.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from itemese.core.errors import ConfigError
from itemese.evaluation.tasks.base import Task
from itemese.evaluation.tasks.lookup import task_named

Result = Mapping[str, Any]
"""What ``result.json`` holds."""

TWINS = {
    "test_seen_allowed": "seen items allowed",
    "test_seen_excluded": "seen items excluded",
    "test_ties_shuffled": "ties shuffled",
}
"""Splits of `metrics` that hold the same run under another protocol, and how to call them."""


def check_comparable(results: Sequence[Result]) -> None:
    """Check that all results are of the same data, split and protocol.

    Raises:
        ConfigError: There is no result, one is incomplete, or two differ; names what differs.
    """
    if not results:
        message = "`compare` must get at least one result; got none. Name result.json files."
        raise ConfigError(message)
    for result in results:
        for key in ("name", "split_hash", "protocol", "metrics"):
            if key not in result:
                message = (
                    f"`result` must hold {key!r}; got only {sorted(result)}. Give a result.json "
                    "that `evaluate` wrote."
                )
                raise ConfigError(message)
    first = results[0]
    for other in results[1:]:
        pair = f"{first['name']!r} and {other['name']!r}"
        if task_of(first) is not task_of(other):
            message = (
                f"`compare` must get results of one task; got {task_of(first).name} and "
                f"{task_of(other).name} from {pair}, whose figures mean different things. Give "
                "both one `method.task` or `evaluation.task`."
            )
            raise ConfigError(message)
        if first["split_hash"] != other["split_hash"]:
            message = (
                f"`compare` must get results of one split; got {first['split_hash']} and "
                f"{other['split_hash']} from {pair}. Evaluate both on the same logs and "
                "`sequences` section."
            )
            raise ConfigError(message)
        keys = sorted(set(first["protocol"]) | set(other["protocol"]))
        for key in keys:
            ours, theirs = first["protocol"].get(key), other["protocol"].get(key)
            if ours != theirs:
                message = (
                    f"`compare` must get results of one protocol; got `{key}` {ours!r} and "
                    f"{theirs!r} from {pair}. Evaluate both in the same way."
                )
                raise ConfigError(message)


def task_of(result: Result) -> Task:
    """Return what was asked.

    Raises:
        ConfigError: It is no task of this installation.
    """
    return task_named(str(result["protocol"].get("task", "next_item")))


def main_metric(results: Sequence[Result]) -> str:
    """Return the metric that orders runs, such as the headline ndcg.

    Raises:
        ConfigError: As `headline_metrics`.
    """
    return task_of(results[0]).main(headline_metrics(results))


def headline_metrics(results: Sequence[Result]) -> list[str]:
    """Return the metrics that stand in a table of these results; see `Task` on headlines.

    Raises:
        ConfigError: They share none.
    """
    names = [
        [name.removeprefix("test/") for name in result["metrics"] if name.startswith("test/")]
        for result in results
    ]
    return task_of(results[0]).headline(names)


def value_of(values: Mapping[str, Any] | None, metric: str) -> dict[str, float] | None:
    """Return ``{"value", "low", "high"}`` (a bare number has no interval), or None."""
    found = (values or {}).get(metric)
    if isinstance(found, Mapping):
        return {key: float(found[key]) for key in ("value", "low", "high") if key in found}
    return None if found is None else {"value": float(found)}


def with_interval(found: Mapping[str, float] | None) -> str:
    """Return ``0.0868 [0.0828-0.0908]`` for what `value_of` found, ``-`` for None."""
    if found is None:
        return "-"
    value = f"{found['value']:.4f}"
    return f"{value} [{found['low']:.4f}-{found['high']:.4f}]" if "low" in found else value


def labels(results: Sequence[Result]) -> list[str]:
    """Return a name for each result, with its seed, then a number, where names repeat."""
    names = [str(result["name"]) for result in results]
    seeded = [
        f"{name} (seed {', '.join(map(str, result.get('seeds') or ['?']))})"
        if names.count(name) > 1
        else name
        for name, result in zip(names, results, strict=True)
    ]
    return [
        f"{name} #{seeded[:place].count(name) + 1}" if seeded.count(name) > 1 else name
        for place, name in enumerate(seeded)
    ]


def ordered(results: Sequence[Result]) -> list[Result]:
    """Return the results best first, by the main metric."""
    metric, falling = main_metric(results), task_of(results[0]).falling

    def worth(result: Result) -> float:
        value: float = value_of(result["metrics"], f"test/{metric}")["value"]  # type: ignore[index]
        return value if metric in falling else -value

    return sorted(results, key=worth)


def uses_semantic_ids(result: Result) -> bool:
    """Return whether the run generated semantic IDs (its codebooks are in the result)."""
    return bool(result.get("codebooks"))


def protocol_line(result: Result) -> str:
    """Return data, split, protocol and split hash in one line."""
    facts = [*data_facts(result), *[f"{key} {value}" for key, value in protocol_facts(result)]]
    return "; ".join(facts)


def data_facts(result: Result) -> list[str]:
    """Return where the data come from and how many there are."""
    data = result.get("data") or {}
    return [
        *[str(data[key]) for key in ("source", "name") if data.get(key)],
        *[
            f"{data[key]:,} {key.removeprefix('num_')}"
            for key in ("num_users", "num_items", "num_events")
            if isinstance(data.get(key), int)
        ],
    ]


def protocol_facts(result: Result) -> list[tuple[str, str]]:
    """Return names and values of the protocol, and the hash of the split."""
    facts = [(str(key), _shown(value)) for key, value in sorted(result["protocol"].items())]
    return [*facts, ("split hash", str(result["split_hash"]))]


def _shown(value: Any) -> str:
    """Return a setting as a word."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
