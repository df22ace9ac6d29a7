"""The report of a study: one file, offline, readable on a phone."""

from collections.abc import Sequence

from itemese.core.artifacts import Store
from itemese.evaluation.report.html import Figures, Note, Part, Section, Table, page
from itemese.search.outcome import StudyResult, gain_line, rule
from itemese.search.plots import all_figures, health_rows
from itemese.search.records import Trial, short
from itemese.search.sampling import open_study
from itemese.search.space import Space
from itemese.search.winner import Winner

REPORT_FILE = "report.html"

_EARLY = " (stopped early)"


def write_report(found: StudyResult, space: Space, store: Store) -> None:
    """Write ``report.html`` beside ``study.json``."""
    home = store.root.child(f"studies/{found.name}")
    study = open_study(space, list(found.trials), name=found.name, home=home, url=None)
    sections = [Section("Winner", *_winner(found.winner, found))] if found.winner else []
    for title, figures in all_figures(study, found, store).items():
        health = title.startswith("Codebook")
        table = [_health_table(found.trials, store)] if health else []
        sections.append(Section(title, Figures(*figures), *table))
    sections.append(Section("Trials", _trials(found)))
    text = page(f"Study {found.name}", _opening(found), sections)
    home.write_bytes(REPORT_FILE, text.encode())


def _opening(found: StudyResult) -> list[Part]:
    """Return what stands above the sections: the best trial, and what the study cost."""
    best, default = found.best, found.default
    parts: list[Part] = []
    counts = dict.fromkeys(("completed", "stopped", "failed", "interrupted"), 0)
    for trial in found.trials:
        counts[trial.ending.status] += 1
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    if found.interrupted:
        text = f"Not finished: {summary or 'no trial'} of {found.num_trials}."
        parts.append(Note(f"{text} It goes on by --resume.", "warning"))
    if best:
        scores = f"{found.metric} {_score(best)}; the recipe as it is: {_score(default)}"
        text = f"Best trial: {best.number} ({_values(best)}), {scores}, both on validation."
        parts.append(Note(text, "verdict"))
        text = "The best of many trials looks better than it is; only fresh seeds show its worth."
        parts.append(Note(text, "faint"))
    seconds = sum(trial.ending.seconds for trial in found.trials)
    text = (
        f"{len(found.trials)} trials ({summary}), sampler {found.config.sampler}, seed "
        f"{found.config.seed}; {seconds:,.0f} trial-seconds. Sharing saved {found.saved.stages} "
        f"stage runs, {found.saved.seconds:,.0f} s. Chosen by: {rule(found.config)}"
    )
    return [*parts, Note(text)]


def _winner(winner: Winner, found: StudyResult) -> list[Part]:
    seeds = [run.seed for run in winner.reruns]
    columns = ["trial", "in the study", *(f"seed {s}" for s in seeds), "mean", "values"]
    rows = [
        [
            str(one.trial),
            "-" if one.in_study is None else f"{one.in_study:.4f}{_EARLY * one.stopped}",
            *(f"{one.validation[s]:.4f}" if s in one.validation else "failed" for s in seeds),
            one.error if one.mean is None else f"{one.mean:.4f}",
            ", ".join(f"{path}={short(value)}" for path, value in one.values.items()),
        ]
        for one in winner.finalists
    ]
    best = next(p for p, one in enumerate(winner.finalists) if one.trial == winner.trial)
    text = gain_line(winner).removesuffix(".") + "."
    headline = [n for n in winner.test if n.startswith("test/") and n.endswith("@10")]
    tests = [
        [name, *(f"{winner.test[name][key]:.4f}" for key in ("mean", "low", "high"))]
        for name in headline
    ]
    if winner.tested > 1:
        text += f" It is winner {winner.tested} of this study to meet the test split."
    return [
        Note(text[0].upper() + text[1:], "verdict"),
        Note(f"Trained again on fresh seeds, {found.metric}:"),
        Table(columns, rows, {(best, column) for column in range(len(columns))}),
        Note(f"Trial {winner.trial}, tested once a fresh seed:"),
        Table(["metric", "mean", "lowest", "highest"], tests),
        Note(f"Finalists, tests and bundle took {winner.seconds:,.0f} s.", "faint"),
    ]


def _trials(found: StudyResult) -> Table:
    costs = found.config.minimise
    columns = ["trial", "ended", found.metric, *costs, "seconds", "built", "reused", "values"]
    front = {t.number for t in found.front} if costs else set()
    rows = []
    for trial in found.trials:
        ending = trial.ending
        numbers = [_score(trial), *(short(ending.costs.get(name, "-")) for name in costs)]
        summary = f"{_values(trial)}{': ' if ending.error else ''}{ending.error}"
        status = ending.status + (", on the front" if trial.number in front else "")
        counts = [f"{ending.seconds:.1f}", str(len(ending.built)), str(len(ending.reused))]
        rows.append([str(trial.number), status, *numbers, *counts, summary])
    places = [p for p, t in enumerate(found.trials) if found.best and t.number == found.best.number]
    best = {(places[0], column) for column in range(len(columns))} if places else set()
    return Table(columns, rows, best)


def _health_table(trials: Sequence[Trial], store: Store) -> Table:
    rows = [
        [
            f"{row['kind']}, {row['num_codebooks']} x {row['codebook_size']}",
            f"{row['shared']:.1f}",
            "-" if row["error"] is None else f"{row['error']:.3f}",
            f"{row['use']:.0f}",
            ", ".join(map(str, row["trials"])),
        ]
        for row in health_rows(trials, store)
    ]
    return Table(["codebooks", "share codes, %", "error left", "least use, %", "trials"], rows)


def _score(trial: Trial | None) -> str:
    if trial is None or trial.ending.objective is None:
        return "none"
    return f"{trial.ending.objective:.4f}"


def _values(trial: Trial) -> str:
    return ", ".join(f"{path}={short(value)}" for path, value in trial.values.items())
