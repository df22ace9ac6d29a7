"""The page of a study: one file, offline, readable on a phone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from itemese.core.artifacts import Store
from itemese.core.config import digest_of
from itemese.evaluation.report.html import Facts, Figures, Note, Part, Section, Table, page
from itemese.evaluation.report.sections import as_yaml, commit, versions
from itemese.pipeline.result import environment
from itemese.search.outcome import StudyResult, rule, verdict
from itemese.search.plots import all_figures, health_rows
from itemese.search.records import Trial, short
from itemese.search.sampling import open_study
from itemese.search.space import Space
from itemese.search.winner import Winner

REPORT_FILE = "report.html"

MOST_RANKED = 10
"""Trials of the leaderboard; the table of all trials is folded away."""

_FIRST = ("Pareto front", "History", "Importances", "Learning curves")
"""Figures that are not folded away."""

_EARLY = " (stopped early)"


def write_report(found: StudyResult, space: Space, store: Store) -> None:
    """Write ``report.html`` beside ``study.json``."""
    home = store.root.child(f"studies/{found.name}")
    study = open_study(space, list(found.trials), name=found.name, home=home, url=None)
    drawn = all_figures(study, found, store)
    first = [figure for title in _FIRST for figure in drawn.get(title, [])]
    health = [_health_table(found.trials, store)] if "Codebook health by size" in drawn else []
    text = page(
        found.name,
        kind="Study",
        verdict=verdict(found),
        notes=_notes(found),
        sections=[
            Section("Leaderboard", *_leaderboard(found)),
            Section("Figures", Figures(*first)),
        ],
        folded=[
            Section("All trials", _trials(found, found.trials, "Trials in the order of proposal")),
            *[
                Section(title, Figures(*figures), *(health if title.startswith("Code") else []))
                for title, figures in drawn.items()
                if title not in _FIRST
            ],
            Section("Settings", *_settings(found, space)),
            Section("Timings by stage", *_timings(found, store)),
            Section("Provenance", _provenance(found, space)),
        ],
    )
    home.write_bytes(REPORT_FILE, text.encode())


def _notes(found: StudyResult) -> list[Note]:
    """Return what stands below the verdict: what is missing, and how the trials ended."""
    counts = dict.fromkeys(("completed", "stopped", "failed", "interrupted"), 0)
    for trial in found.trials:
        counts[trial.ending.status] += 1
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    notes = []
    if found.interrupted:
        text = f"Not finished: {summary or 'no trial'} of {found.num_trials}."
        notes.append(Note(f"{text} It goes on by --resume.", "warning"))
    if found.winner and found.winner.recipe_failed:
        notes.append(Note(f"The recipe as it is failed: {found.winner.recipe_failed}", "warning"))
    if found.winner and found.winner.tested > 1:
        text = f"This is winner {found.winner.tested} of the study to meet the test split."
        notes.append(Note(text, "warning"))
    text = (
        f"{len(found.trials)} trials ({summary}), sampler {found.config.sampler}. Chosen by: "
        f"{rule(found.config)}"
    )
    return [*notes, Note(text, "faint")]


def _leaderboard(found: StudyResult) -> list[Part]:
    """Return the finalists on fresh seeds and the winner's tests, else the best trials."""
    if found.winner:
        return _winner(found.winner, found)
    judged = [trial for trial in found.trials if trial.ending.objective is not None]
    ranked = sorted(judged, key=lambda t: (-(t.ending.objective or 0.0), t.number))
    caption = f"Best {found.metric} first, at most {MOST_RANKED} trials"
    return [_trials(found, ranked[:MOST_RANKED], caption)]


def _winner(winner: Winner, found: StudyResult) -> list[Part]:
    seeds = [run.seed for run in winner.reruns]
    columns = ["trial", "mean", *(f"seed {s}" for s in seeds), "in the study", "values"]
    finalists = sorted(
        winner.finalists, key=lambda one: (one.mean is None, -(one.mean or 0.0), one.trial)
    )
    rows = [
        [
            str(one.trial),
            "failed" if one.mean is None else f"{one.mean:.4f}",
            *(f"{one.validation[s]:.4f}" if s in one.validation else "failed" for s in seeds),
            "-" if one.in_study is None else f"{one.in_study:.4f}{_EARLY * one.stopped}",
            f"{_in_words(one.values)}{': ' if one.error else ''}{one.error}",
        ]
        for one in finalists
    ]
    place = next(p for p, one in enumerate(finalists) if one.trial == winner.trial)
    marks = {p: "recipe as it is" for p, one in enumerate(finalists) if one.trial == 0}
    marks[place] = ", ".join(["winner", *([marks[place]] if place in marks else [])])
    tested = [n for n in winner.test if n.startswith("test/")]
    headline = [n for n in tested if n.endswith("@10")] or tested
    gain = winner.gain
    tests = []
    for name in headline:
        metric = name.removeprefix("test/")
        row = [metric, *(f"{winner.test[name][key]:.4f}" for key in ("mean", "low", "high"))]
        if gain:
            row.append(f"{gain['theirs']:.4f}" if gain["metric"] == metric else "-")
        tests.append(row)
    caption = f"Finalists, trained again on fresh seeds: {found.metric}, best mean first"
    return [
        Table(caption, columns, rows, {(place, 1)}, marks, {len(columns) - 1}),
        Table(
            f"Trial {winner.trial} on the test split, once a fresh seed",
            ["metric", "mean", "lowest", "highest", *(["recipe as it is"] if gain else [])],
            tests,
        ),
    ]


def _trials(found: StudyResult, trials: Sequence[Trial], caption: str) -> Table:
    costs = found.config.minimise
    columns = ["trial", found.metric, *costs, "ended", "seconds", "built", "reused", "values"]
    front = {t.number for t in found.front} if costs else set()
    rows = []
    for trial in trials:
        ending = trial.ending
        score = "none" if ending.objective is None else f"{ending.objective:.4f}"
        summary = f"{_in_words(trial.values)}{': ' if ending.error else ''}{ending.error}"
        status = ending.status + (", on the front" if trial.number in front else "")
        numbers = [score, *(short(ending.costs.get(name, "-")) for name in costs)]
        counts = [f"{ending.seconds:.1f}", str(len(ending.built)), str(len(ending.reused))]
        rows.append([str(trial.number), *numbers, status, *counts, summary])
    best = {(p, 1) for p, t in enumerate(trials) if found.best and t.number == found.best.number}
    marks = {p: "recipe as it is" for p, t in enumerate(trials) if t.number == 0}
    words = {columns.index("ended"), columns.index("values")}
    return Table(caption, columns, rows, best, marks, words)


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
    columns = ["codebooks", "share codes, %", "error left", "least use, %", "trials"]
    return Table("Codebooks that trials used", columns, rows)


def _settings(found: StudyResult, space: Space) -> list[Part]:
    study = found.config.model_dump(mode="json", exclude_defaults=True)
    return [as_yaml("Study", study), as_yaml("Recipe as it is", space.recipe)]


def _timings(found: StudyResult, store: Store) -> list[Part]:
    """Return the seconds of each stage that trials built, and what the study took."""
    built = {key for trial in found.trials for key in trial.ending.built}
    seconds: dict[str, list[float]] = defaultdict(list)
    for artifact in filter(None, map(store.find, sorted(built))):
        seconds[artifact.key.partition("/")[0]].append(artifact.manifest.seconds)
    rows = [
        [stage, str(len(each)), f"{sum(each):,.1f}", f"{sum(each) / len(each):,.1f}"]
        for stage, each in seconds.items()
    ]
    trial_seconds = sum(trial.ending.seconds for trial in found.trials)
    facts = [
        ("wall clock", f"{found.seconds:,.0f} s"),
        ("all trials", f"{trial_seconds:,.0f} s"),
        ("sharing saved", f"{found.saved.stages} stage runs, {found.saved.seconds:,.0f} s"),
    ]
    if found.winner:
        facts.append(("finalists, tests and bundle", f"{found.winner.seconds:,.0f} s"))
    return [Table("Stages that trials built", ["stage", "runs", "seconds", "mean"], rows),
            Facts(facts)]  # fmt: skip


def _provenance(found: StudyResult, space: Space) -> Facts:
    now = environment()
    pairs = [
        ("commit", commit(now.pop("git", None))),
        ("digest of the study", digest_of(space.identity())),
        ("seed of the sampler", str(found.config.seed)),
        ("environment", versions(now)),
    ]
    if found.winner:
        pairs.append(("bundle", f"folder `winner` of the study, seed {found.winner.bundled_seed}"))
    return Facts(pairs)


def _in_words(values: Mapping[str, object]) -> str:
    return ", ".join(f"{path}={short(value)}" for path, value in values.items())
