"""The figures of a study, from the records alone, as SVG.

Where trials were stopped early, those that ran on have more to show than the others; figures that
compare trials then show all of them at the last validation that each of them had.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from optuna.trial import FrozenTrial, TrialState

from itemese.core.artifacts import Store
from itemese.evaluation.report.html import Figure
from itemese.evaluation.report.plots import COLOURS, FAINT, panel, svg
from itemese.search.config import SearchConfig
from itemese.search.outcome import StudyResult, ranked
from itemese.search.records import Trial

logger = logging.getLogger(__name__)

MAX_CURVES = 40
"""Learning curves that one figure still shows apart: those of the best trials."""

_BLUE, _RED = COLOURS[:2]


def level(study: optuna.Study, trials: Sequence[Trial]) -> tuple[optuna.Study, str]:
    """Return a study that compares all trials after as many validations, and words that say so.

    That is the study itself where none was stopped.
    """
    judged = [t for t in trials if t.ending.status in ("completed", "stopped") and t.ending.curve]
    if all(t.ending.status == "completed" for t in judged):
        return study, ""
    count = min(len(t.ending.curve) for t in judged)
    known = study.get_trials(deepcopy=False)
    even = optuna.create_study(direction=study.direction)
    for trial in judged:
        even.add_trial(
            optuna.trial.create_trial(
                value=trial.ending.bests[count - 1],
                params=known[trial.number].params,
                distributions=known[trial.number].distributions,
            )
        )
    return even, f" after {count} validation{'s' if count > 1 else ''}"


def history(study: optuna.Study, config: SearchConfig, when: str = "") -> list[Figure]:
    """Return each objective by trial number, with the best so far."""
    figures = []
    for place, name in enumerate(objectives(config, when)):
        done = _done(study)
        values = [t.values[place] for t in done]
        up = study.directions[place] == optuna.study.StudyDirection.MAXIMIZE
        best = (np.maximum if up else np.minimum).accumulate(values)
        with panel(height=3.0) as (figure, axes):
            axes.plot([t.number for t in done], values, "o", color=FAINT, ms=5, label="trial")
            axes.step([t.number for t in done], best, where="post", color=_RED, label="best so far")
            axes.set_xlabel("trial")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_title(name)
            figure.legend(loc="outside lower center", ncols=2)
            figures.append(Figure(svg(figure), f"{name} of each trial in the order of proposal"))
    return figures


def fronts(study: optuna.Study, config: SearchConfig) -> list[Figure]:
    """Return the metric against each cost, the front marked; nothing for one objective."""
    if not config.minimise:
        return []
    numbers = {t.number for t in study.best_trials}
    figures = []
    for place, name in enumerate(config.minimise, start=1):
        with panel(height=3.4) as (figure, axes):
            for kind, colour, front in (
                ("other trials", FAINT, False),
                ("Pareto front", _RED, True),
            ):
                chosen = [t for t in _done(study) if (t.number in numbers) is front]
                chosen.sort(key=lambda t: float(t.values[place]))
                x, y = [t.values[place] for t in chosen], [t.values[0] for t in chosen]
                axes.plot(x, y, "o-" if front else "o", color=colour, lw=1, ms=6, label=kind)
                for trial, *at in zip(chosen, x, y, strict=True):
                    axes.annotate(f" {trial.number}", at, fontsize=8, color=colour, va="bottom")
            axes.set_xlabel(name)
            axes.set_title(config.metric)
            figure.legend(loc="outside lower center", ncols=2)
            caption = f"{config.metric} (up) against {name} (down); numbers are trials"
            figures.append(Figure(svg(figure), caption))
    return figures


def importances(study: optuna.Study, config: SearchConfig, when: str = "") -> list[Figure]:
    """Return which parameter explains how much of each objective's spread (fANOVA).

    Only parameters that every completed trial has are weighed.
    """
    figures = []
    for place, name in enumerate(objectives(config, when)):
        if len({t.values[place] for t in _done(study)}) < 3:
            continue
        try:
            shares = optuna.importance.get_param_importances(study, target=_target(place))
        except (RuntimeError, ValueError) as error:
            logger.info("no importances for %s: %s", name, error)
            continue
        paths = list(shares)[::-1]
        with panel(height=1.2 + 0.35 * len(paths)) as (figure, axes):
            axes.barh(range(len(paths)), [shares[path] for path in paths], color=_BLUE, height=0.6)
            axes.set_yticks(range(len(paths)), paths)
            axes.set_xlim(0, 1)
            axes.set_xlabel("share of the spread")
            axes.set_title(f"what decides {name}")
            axes.grid(visible=False, axis="y")
            caption = f"Share of the spread of {name} that each parameter explains"
            figures.append(Figure(svg(figure), caption))
    return figures


def slices(study: optuna.Study, config: SearchConfig, when: str = "") -> list[Figure]:
    """Return the metric by the values of each parameter; later trials are darker."""
    figures = []
    for path in config.ordered():
        done = [t for t in _done(study) if path in t.params]
        if len(done) < 2:
            continue
        with panel(height=3.0) as (figure, axes):
            axes.scatter(
                _places(done, path, axes),
                [t.values[0] for t in done],
                color=_BLUE,
                alpha=[0.3 + 0.7 * place / len(done) for place in range(1, len(done) + 1)],
                s=28,
            )
            axes.set_xlabel(path)
            axes.set_title(f"{config.metric}{when}")
            figures.append(Figure(svg(figure), f"{config.metric}{when} by {path}"))
    return figures


def _places(trials: Sequence[FrozenTrial], path: str, axes: Any) -> list[Any]:
    """Return where the values of a parameter stand on the x axis, and scale or label it."""
    values = [t.params[path] for t in trials]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        names = sorted({str(value) for value in values})
        axes.set_xticks(range(len(names)), names)
        return [names.index(str(value)) for value in values]
    if getattr(trials[0].distributions[path], "log", False):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    return values


def parallel(study: optuna.Study, config: SearchConfig, when: str = "") -> list[Figure]:
    """Return one line a trial through all its values, the better the darker.

    A trial without some parameter would be left out of the figure, so only parameters that all
    completed trials have are drawn.
    """
    done = _done(study)
    shared = [p for p in config.ordered() if done and all(p in t.params for t in done)]
    if len(shared) < 2:
        return []
    columns = [*shared, config.metric]
    ranks = np.argsort(np.argsort([t.values[0] for t in done])) / max(1, len(done) - 1)
    heights, ticks = [], []
    for path in shared:
        height, ends = _heights([t.params[path] for t in done], done[0].distributions[path])
        heights.append(height)
        ticks.append(ends)
    height, ends = _heights([t.values[0] for t in done], None)
    heights, ticks = [*heights, height], [*ticks, ends]
    with panel(height=3.4) as (figure, axes):
        for place, rank in enumerate(ranks):
            line = [column[place] for column in heights]
            axes.plot(range(len(columns)), line, color=_BLUE, alpha=0.15 + 0.85 * rank, lw=1.4)
        for place, (low, high) in enumerate(ticks):
            axes.axvline(place, color=FAINT, lw=0.8)
            axes.text(place, -0.04, low, ha="center", va="top", fontsize=8)
            axes.text(place, 1.04, high, ha="center", va="bottom", fontsize=8)
        short = [name.rpartition(".")[2] for name in columns]
        axes.set_xticks(range(len(columns)), short, rotation=20, ha="right")
        axes.tick_params(axis="x", pad=14)
        axes.set_yticks([])
        axes.set_ylim(-0.12, 1.12)
        caption = f"One line a trial through its values to {config.metric}{when}"
        return [Figure(svg(figure), f"{caption}; the better the darker")]


def _heights(values: list[Any], distribution: Any) -> tuple[list[float], tuple[str, str]]:
    """Return each value's height, 0 to 1, and the lowest and highest value as text."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        names = sorted({str(value) for value in values})
        top = max(1, len(names) - 1)
        return [names.index(str(value)) / top for value in values], (names[0], names[-1])
    numbers = np.asarray(values, dtype=float)
    ends = (f"{numbers.min():.4g}", f"{numbers.max():.4g}")
    if getattr(distribution, "log", False):
        numbers = np.log(numbers)
    span = float(np.ptp(numbers)) or 1.0
    return ((numbers - numbers.min()) / span).tolist(), ends


def curves(trials: Sequence[Trial], config: SearchConfig) -> list[Figure]:
    """Return the metric at each validation of each trial."""
    with_curve = [t for t in trials if t.ending.curve]
    best = sorted(with_curve, key=lambda t: -max(t.ending.curve))[:MAX_CURVES]
    if not best:
        return []
    first = next(iter(ranked(trials, config)), None)
    with panel(height=3.4) as (figure, axes):
        kinds = (("best trial", _RED), ("run to the end", _BLUE), ("not run to the end", FAINT))
        drawn = set()
        for trial in best:
            kind, colour = kinds[1] if trial.ending.status == "completed" else kinds[2]
            if first and trial.number == first.number:
                kind, colour = kinds[0]
            curve = trial.ending.curve
            axes.plot(
                range(1, len(curve) + 1),
                curve,
                marker="o",
                ms=3,
                lw=1.4,
                ls="-" if trial.ending.status == "completed" else ":",
                color=colour,
                label=kind if kind not in drawn else None,
            )
            drawn.add(kind)
        axes.set_xlabel("validation")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(config.metric)
        figure.legend(loc="outside lower center", ncols=3)
        return [Figure(svg(figure), f"{config.metric} at each validation")]


def codebook_health(trials: Sequence[Trial], store: Store) -> list[Figure]:
    """Return collisions and error left by codebook size, from the health of what trials used."""
    rows = health_rows(trials, store)
    sizes = sorted({row["codebook_size"] for row in rows})
    if len(rows) < 2 or len(sizes) < 2:
        return []
    figures = []
    for key, title, what in (
        ("shared", "items that share all codes, %", "Items whose codes another item has too"),
        ("error", "error left, share", "Squared error left of the vectors' own"),
        ("use", "codes in use, %, least level", "Codes in use at the level that uses least"),
    ):
        with panel(height=3.2) as (figure, axes):
            for place, line in enumerate(sorted({(r["kind"], r["num_codebooks"]) for r in rows})):
                points = [r for r in rows if (r["kind"], r["num_codebooks"]) == line]
                points = sorted((r for r in points if r[key] is not None), key=_size)
                axes.plot(
                    [r["codebook_size"] for r in points],
                    [r[key] for r in points],
                    "o-",
                    color=COLOURS[place % len(COLOURS)],
                    label=f"{line[0]}, {line[1]} codes",
                )
            axes.set_xscale("log")
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.set_xlabel("codes a codebook")
            axes.set_title(title)
            figure.legend(loc="outside lower center", ncols=2)
            figures.append(Figure(svg(figure), what))
    return figures


def health_rows(trials: Sequence[Trial], store: Store) -> list[dict[str, Any]]:
    """Return one row a codebook that trials used: its settings and its health."""
    users: dict[str, list[int]] = {}
    for trial in trials:
        for key in dict.fromkeys([*trial.ending.built, *trial.ending.reused]):
            if key.startswith("codebooks/"):
                users.setdefault(key, []).append(trial.number)
    rows = []
    for key, numbers in users.items():
        artifact = store.find(key)
        if artifact is None:
            continue
        health, config = artifact.counts, artifact.manifest.config
        levels = health.get("levels") or []
        rows.append(
            {
                "kind": config["kind"],
                "num_codebooks": config["num_codebooks"],
                "codebook_size": config["codebook_size"],
                "shared": 100 * health["collision_rate_before"],
                "error": health.get("error"),
                "use": 100 * min((level["use"] for level in levels), default=1.0),
                "trials": numbers,
            }
        )
    return sorted(rows, key=lambda r: (r["kind"], r["num_codebooks"], r["codebook_size"]))


def objectives(config: SearchConfig, when: str = "") -> list[str]:
    """Return the names of all objectives in the order of the study's values."""
    return [f"{config.metric}{when}", *config.minimise]


def _size(row: dict[str, Any]) -> int:
    return int(row["codebook_size"])


def _target(place: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(trial.values[place])


def _done(study: optuna.Study) -> list[FrozenTrial]:
    found: list[FrozenTrial] = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return found


def all_figures(study: optuna.Study, found: StudyResult, store: Store) -> dict[str, list[Figure]]:
    """Return every figure of a study by the section that it stands in; empty ones are left out."""
    config, trials = found.config, found.trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of features that Optuna calls experimental
        even, when = level(study, trials)
        enough = len(_done(even)) >= 2
        sections = {
            "Pareto front": fronts(study, config),
            "History": history(even, config, when) if _done(even) else [],
            "Importances": importances(even, config, when) if enough else [],
            "Slices": slices(even, config, when),
            "Parallel coordinates": parallel(even, config, when) if enough else [],
            "Learning curves": curves(trials, config),
            "Codebook health by size": codebook_health(trials, store),
        }
    return {title: figures for title, figures in sections.items() if figures}
