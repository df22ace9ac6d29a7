"""The verdict that opens a page and ends a job: at most two sentences, from the results alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.result_file import (
    Result,
    headline_metrics,
    labels,
    main_metric,
    ordered,
    task_of,
    value_of,
)

MOST_NAMED = 4
"""Runs whose figures the first sentence gives."""

_FIRST = {"1": "at the first place", "5": "in its first five", "10": "in its first ten"}


@dataclass(frozen=True)
class _Run:
    """A run, or a recipe over its seeds.

    Attributes:
        name: As in the table.
        figures: ``{"value", "low", "high"}`` by metric, intervals as far as known.
        rival: Whether it is a baseline.
        test: Its paired difference from the comparison's baseline, if it was tested.
    """

    name: str
    figures: Mapping[str, Mapping[str, float] | None]
    rival: bool
    test: Mapping[str, Any] | None

    @property
    def title(self) -> str:
        """The name, marked if it is a rival's."""
        return f"the baseline {self.name}" if self.rival else self.name


def verdict(results: Sequence[Result], comparison: Mapping[str, Any] | None = None) -> str:
    """Return how often runs are right, and whether the best one beats the best rival.

    Where some runs are rivals and some are not, the second sentence is about the best of the
    latter, also if it loses. Without paired tests it compares intervals.

    Args:
        results: Comparable runs.
        comparison: What `evaluation.compare.compare` returned for them, for the paired tests.

    Raises:
        ConfigError: The results share no metric.
    """
    compared, main = comparison or {}, main_metric(results)
    runs = _over_seeds(results, compared["recipes"]) if compared.get("recipes") else []
    runs = runs or _one_by_one(results, compared)
    baseline = (compared.get("recipes") or compared).get("baseline")
    subject = next((run for run in runs if not run.rival), runs[0])
    others = [run for run in runs if run is not subject]
    opponent = next((run for run in others if run.name == baseline), next(iter(others), None))
    # The runs that the second sentence is about are among those of the first.
    needed = [runs[0], subject, *([opponent] if opponent else []), *runs]
    names = list(dict.fromkeys(run.name for run in needed))[:MOST_NAMED]
    opening = _standing([run for run in runs if run.name in names], results)
    if len(runs) > len(names):
        opening += f"; the table has {len(runs) - len(names)} more"
    seeds = _seeds(results, compared)
    if opponent is None:
        return (
            f"{opening}. It is the only one here ({seeds}): `itemese compare` shows whether "
            "simpler methods do as well."
        )
    falling = main in task_of(results[0]).falling
    return f"{opening}. {_difference(subject, opponent, main, falling=falling, seeds=seeds)}"


def is_rival(result: Result) -> bool:
    """Return whether a run is a baseline under its method's own name.

    Baselines are those of the task, and all methods without trained values.
    """
    methods = [method["name"] for method in task_of(result).baselines(EvaluationConfig())]
    baseline = result["name"] in methods or result.get("parameters") == 0
    return baseline and result.get("method") == result["name"]


def in_words(metric: str, value: float, unit: str = "users") -> str:
    """Return what a figure says of a run, as the end of a sentence.

    >>> in_words("recall@10", 0.26)
    'finds the next item in its first ten for 1 of 4 users'
    >>> in_words("log_loss", 0.3)
    'has log_loss 0.3000'
    """
    kind, _, cutoff = metric.partition("@")
    if kind == "recall":
        place = _FIRST.get(cutoff, f"in its first {cutoff}")
        return f"finds the next item {place} for {often(value, unit)}"
    if _is_share(metric):
        return f"chooses the next item for {often(value, unit)}"
    return f"has {metric} {value:.4f}"


def often(share: float, unit: str = "users") -> str:
    """Return a share in plain words; without a unit the bare numbers.

    >>> often(0.0907), often(0.62), often(0.0), often(0.25, "")
    ('1 of 11 users', '62 of 100 users', 'no users', '1 of 4')
    """
    if not share:
        return f"no {unit}" if unit else "none"
    text = f"{100 * share:.0f} of 100" if share > 1 / 3 else f"1 of {1 / share:,.0f}"
    return f"{text} {unit}".rstrip()


def _is_share(metric: str) -> bool:
    return metric.startswith("recall@") or metric.endswith("/hit@1")


def _one_by_one(results: Sequence[Result], comparison: Mapping[str, Any]) -> list[_Run]:
    ranked, metrics, main = ordered(results), headline_metrics(results), main_metric(results)
    tests = {t["name"]: t for t in comparison.get("tests", []) if t["metric"] == main}
    return [
        _Run(
            name,
            {m: value_of(result["metrics"], f"test/{m}") for m in metrics},
            is_rival(result),
            tests.get(name),
        )
        for result, name in zip(ranked, labels(ranked), strict=True)
    ]


def _over_seeds(results: Sequence[Result], summary: Mapping[str, Any]) -> list[_Run]:
    rivals = {result["name"] for result in results if is_rival(result)}
    return [
        _Run(
            row["name"],
            {m: {"value": f["mean"], **f} for m, f in row["metrics"].items()},
            row["name"] in rivals,
            row.get("tests", {}).get(summary["main"]),
        )
        for row in summary["rows"]
    ]


def _seeds(results: Sequence[Result], comparison: Mapping[str, Any]) -> str:
    """Return over how many seeds each figure is."""
    rows = (comparison.get("recipes") or {}).get("rows")
    count = len(rows[0]["seeds"]) if rows else 1
    return f"mean of {count} seeds" if count > 1 else "one seed"


def _standing(runs: Sequence[_Run], results: Sequence[Result]) -> str:
    """Return the first sentence without its full stop: what each run achieves, best first."""
    metric = headline_metrics(results)[0]
    judged = results[0].get("judged") or {}
    unit = "users" if judged.get("users") == judged.get("requests") else "requests"
    values = [(run.figures.get(metric) or {}).get("value") for run in runs]
    known = [
        (run.name, value) for run, value in zip(runs, values, strict=True) if value is not None
    ]
    (leader, best), *rest = known
    text = f"{leader} {in_words(metric, best, unit)}"
    if metric in task_of(results[0]).falling:
        text += " (lower is better)"
    shown = [often(value, "") if _is_share(metric) else f"{value:.4f}" for _, value in rest]
    each = [
        f"{name} {'for ' if _is_share(metric) else ''}{figure}"
        for (name, _), figure in zip(rest, shown, strict=True)
    ]
    oracle = next((r["oracle"] for r in results if r.get("oracle")), None)
    ceiling = value_of(oracle, f"test/{metric}")
    if ceiling and len(runs) == 1:
        figure = often(ceiling["value"], "") if _is_share(metric) else f"{ceiling['value']:.4f}"
        each.append(f"the best achievable on this simulated log is {figure}")
    return "; ".join([text, ", ".join(each)]) if each else text


def _difference(subject: _Run, opponent: _Run, metric: str, *, falling: bool, seeds: str) -> str:
    """Return whether the subject beats its opponent, by the paired test if there was one."""
    theirs = opponent.title
    what = f"{metric} (lower is better)" if falling else metric
    test, sign = (subject.test, 1) if subject.test else (opponent.test, -1)
    if test is None:
        return _by_intervals(subject, opponent, metric, what, falling=falling, seeds=seeds)
    size = sign * test["difference"]
    low, high = sorted(sign * test[f"difference_{end}"] for end in ("low", "high"))
    better = size < 0 if falling else size > 0
    if not size:
        relation = "is level with"
    elif test["significant"]:
        relation = "beats" if better else "loses to"
    else:
        relation = "is not shown to beat" if better else "does not beat"
    p = "p < 0.001" if test["p_holm"] < 0.001 else f"p = {test['p_holm']:.2g}"
    return (
        f"{subject.name} {relation} {theirs}: the difference in {what}, {size:+.4f} "
        f"[{low:+.4f}, {high:+.4f}], is {'' if test['significant'] else 'not '}significant "
        f"({p}, {seeds})."
    )


def _by_intervals(
    subject: _Run, opponent: _Run, metric: str, what: str, *, falling: bool, seeds: str
) -> str:
    """Return which of two runs is ahead, and whether their intervals overlap."""
    ours, theirs = subject.figures.get(metric) or {}, opponent.figures.get(metric) or {}
    size = ours["value"] - theirs["value"]
    place = "ahead of" if (size < 0 if falling else size > 0) else "behind"
    if not size:
        place = "level with"
    if "low" not in ours or "low" not in theirs:
        spread = "no interval is known"
    elif ours["low"] <= theirs["high"] and theirs["low"] <= ours["high"]:
        spread = "their intervals overlap"
    else:
        spread = "their intervals do not overlap"
    return (
        f"{subject.name} is {place} {opponent.title} in {what}, {ours['value']:.4f} against "
        f"{theirs['value']:.4f}; {spread}, and no paired test was made ({seeds})."
    )
