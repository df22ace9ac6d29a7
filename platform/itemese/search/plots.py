"""The figures of a study, by Optuna's and Plotly's own means, from the records alone.

Where trials were stopped early, those that ran on have more to show than the others; figures that
compare trials then show all of them at the last validation that each of them had.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from itemese.core.artifacts import Store
from itemese.search.config import SearchConfig
from itemese.search.outcome import StudyResult, ranked
from itemese.search.records import Trial

logger = logging.getLogger(__name__)

Figures = list[tuple[str, go.Figure]]
"""Caption and figure."""

MAX_CURVES = 40
"""Learning curves that one figure still shows apart: those of the best trials."""

_CURVES = {"best trial": "#b2182b", "run to the end": "#2166ac", "not run to the end": "#9ca3af"}
_COLOURS = ("#2166ac", "#b2182b", "#1b7837", "#762a83", "#e08214", "#35978f", "#8c510a", "#4d4d4d")


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


def history(study: optuna.Study, config: SearchConfig, when: str = "") -> Figures:
    """Return each objective by trial number, with the best so far."""
    figures: Figures = []
    for place, name in enumerate(objectives(config, when)):
        figure = optuna.visualization.plot_optimization_history(
            study, target=None if len(study.directions) == 1 else _target(place), target_name=name
        )
        figures.append((f"{name} of each trial in the order of proposal", figure))
    return figures


def fronts(study: optuna.Study, config: SearchConfig) -> Figures:
    """Return the metric against each cost, the front marked; nothing for one objective."""
    if not config.minimise:
        return []
    numbers = {t.number for t in study.best_trials}
    done = _done(study)
    figures: Figures = []
    for place, name in enumerate(config.minimise, start=1):
        figure = go.Figure()
        for kind, colour, chosen in (
            ("other trials", "#9ca3af", [t for t in done if t.number not in numbers]),
            ("Pareto front", "#b2182b", [t for t in done if t.number in numbers]),
        ):
            points = sorted(chosen, key=lambda t: t.values[place])
            figure.add_scatter(
                x=[t.values[place] for t in points],
                y=[t.values[0] for t in points],
                text=[_hover_text(t) for t in points],
                mode="markers",
                marker={"color": colour, "size": 9},
                name=kind,
            )
        figure.update_layout(xaxis_title=name, yaxis_title=config.metric)
        figures.append((f"{config.metric} (up) against {name} (down)", figure))
    return figures


def importances(study: optuna.Study, config: SearchConfig, when: str = "") -> Figures:
    """Return which parameter explains how much of each objective's spread (fANOVA).

    Only parameters that every completed trial has are weighed.
    """
    figures: Figures = []
    for place, name in enumerate(objectives(config, when)):
        values = {t.values[place] for t in _done(study)}
        if len(values) < 3:
            continue
        try:
            figure = optuna.visualization.plot_param_importances(
                study, target=_target(place), target_name=name
            )
        except (RuntimeError, ValueError) as error:
            logger.info("no importances for %s: %s", name, error)
            continue
        figure.update_yaxes(title=None)
        figure.update_xaxes(title="share")
        figures.append((f"Share of the spread of {name} that each parameter explains", figure))
    return figures


def slices(study: optuna.Study, config: SearchConfig, when: str = "") -> Figures:
    """Return the metric by the values of each parameter."""
    figures: Figures = []
    for path in config.ordered():
        if sum(path in t.params for t in _done(study)) < 2:
            continue
        figure = optuna.visualization.plot_slice(
            study, params=[path], target=_target(0), target_name=config.metric
        )
        figures.append((f"{config.metric}{when} by {path}", figure))
    return figures


def parallel(study: optuna.Study, config: SearchConfig, when: str = "") -> Figures:
    """Return one line a trial through all its values.

    A trial without some parameter would be left out of the figure, so only parameters that all
    completed trials have are drawn.
    """
    done = _done(study)
    shared = [p for p in config.ordered() if done and all(p in t.params for t in done)]
    if len(shared) < 2:
        return []
    figure = optuna.visualization.plot_parallel_coordinate(
        study, params=shared, target=_target(0), target_name=config.metric
    )
    figure.update_layout(title=None, width=max(600, 170 * (len(shared) + 1)))
    return [(f"One line a trial through its values to {config.metric}{when}", figure)]


def curves(trials: Sequence[Trial], config: SearchConfig) -> Figures:
    """Return the metric at each validation of each trial."""
    shown = [t for t in trials if t.ending.curve]
    best = sorted(shown, key=lambda t: -max(t.ending.curve))[:MAX_CURVES]
    if not best:
        return []
    figure = go.Figure()
    legend = set()
    first = next(iter(ranked(trials, config)), None)
    for trial in sorted(best, key=lambda t: t.number):
        whole = trial.ending.status == "completed"
        kind = "run to the end" if whole else "not run to the end"
        if first and trial.number == first.number:
            kind = "best trial"
        curve = trial.ending.curve
        figure.add_scatter(
            x=list(range(1, len(curve) + 1)),
            y=list(curve),
            text=[f"trial {trial.number} ({trial.ending.status})"] * len(curve),
            mode="lines+markers",
            name=kind,
            legendgroup=kind,
            showlegend=kind not in legend,
            line={"dash": "solid" if whole else "dot", "width": 1.5, "color": _CURVES[kind]},
            marker={"size": 5},
        )
        legend.add(kind)
    figure.update_layout(xaxis_title="validation", yaxis_title=config.metric, showlegend=True)
    return [(f"{config.metric} at each validation", figure)]


def codebook_health(trials: Sequence[Trial], store: Store) -> Figures:
    """Return collisions and error left by codebook size, from the health of what trials used."""
    rows = health_rows(trials, store)
    sizes = {row["codebook_size"] for row in rows}
    if len(rows) < 2 or len(sizes) < 2:
        return []
    figures: Figures = []
    for key, title, what in (
        ("shared", "items that share all codes, %", "Items whose codes another item has too"),
        ("error", "error left, share", "Squared error left of the vectors' own"),
        ("use", "codes in use, %, least level", "Codes in use at the level that uses least"),
    ):
        figure = go.Figure()
        kinds = sorted({row["kind"] for row in rows})
        legend = set()
        for kind, number in sorted({(row["kind"], row["num_codebooks"]) for row in rows}):
            chosen = [r for r in rows if (r["kind"], r["num_codebooks"]) == (kind, number)]
            points = sorted((r for r in chosen if r[key] is not None), key=_size)
            if not points:
                continue
            figure.add_scatter(
                x=[r["codebook_size"] for r in points],
                y=[r[key] for r in points],
                text=[str(number)] * len(points),
                textposition="top center",
                hovertext=[f"trials {r['trials']}" for r in points],
                mode="lines+markers+text",
                name=kind,
                legendgroup=kind,
                showlegend=kind not in legend,
                line={"color": _COLOURS[kinds.index(kind) % len(_COLOURS)]},
            )
            legend.add(kind)
        figure.update_layout(xaxis_title="codes a codebook", yaxis_title=title, showlegend=True)
        ticks = sorted(sizes)
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[str(size) for size in ticks])
        figures.append((f"{what}; at each point the number of codebooks", figure))
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


def _hover_text(trial: FrozenTrial) -> str:
    values = "<br>".join(f"{path}={value}" for path, value in trial.params.items())
    return f"trial {trial.number}<br>{values}"


def all_figures(study: optuna.Study, found: StudyResult, store: Store) -> dict[str, Figures]:
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
