"""The report of a study: one file, offline, readable on a phone."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from itemese.core.artifacts import Store
from itemese.search.outcome import StudyResult, gain_line, rule
from itemese.search.plots import Figures, all_figures, health_rows
from itemese.search.records import Trial, short
from itemese.search.sampling import open_study
from itemese.search.space import Space
from itemese.search.winner import Winner

REPORT_FILE = "report.html"

_FIT = """<script>addEventListener("load", () => document.querySelectorAll(".fits .js-plotly-plot")
.forEach((plot) => Plotly.Plots.resize(plot)));</script>"""
"""Once the page has its width; a figure is drawn while it loads."""

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
"""Plotly's lines through many values draw by compiled shaders, hence unsafe-eval; nothing loads."""

_STYLE = """
:root { color-scheme: light; --ink: #1f2937; --faint: #6b7280; --line: #e5e7eb; --tint: #f6f8fb; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-top: .8rem;
     border-top: 1px solid var(--line); }
p { margin: .4rem 0; max-width: 46rem; overflow-wrap: anywhere; }
.faint { color: var(--faint); font-size: .875rem; }
.verdict { background: var(--tint); border-left: 4px solid #2166ac; padding: .5rem .8rem; }
.warning { background: #fef2f2; border-left: 4px solid #b91c1c; padding: .5rem .8rem; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--faint); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tr.best td { font-weight: 700; color: #15803d; }
.figures { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; min-width: 0; overflow-x: auto; }
figcaption { color: var(--faint); font-size: .8125rem; }
summary { cursor: pointer; padding: .3rem 0; }
"""

_LAYOUT = {
    "template": "plotly_white",
    "height": 360,
    "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
    "title": None,
    "font": {"size": 12},
    "legend": {"orientation": "h", "yanchor": "top", "y": -0.22, "x": 0, "xanchor": "left"},
}


def write_report(found: StudyResult, space: Space, store: Store) -> None:
    """Write ``report.html`` beside ``study.json``."""
    home = store.root.child(f"studies/{found.name}")
    study = open_study(space, list(found.trials), name=found.name, home=home, url=None)
    sections = [_head(found)]
    if found.winner:
        sections.append(_section("Winner", *_winner(found.winner, found)))
    figures = all_figures(study, found, store)
    for title, drawn in figures.items():
        note = _health_table(found.trials, store) if title.startswith("Codebook") else ""
        sections.append(_section(title, _drawn(drawn), note))
    sections.append(_section("Trials", _trials(found)))
    page = _page(f"Study {found.name}", sections, scripted=bool(figures))
    home.write_bytes(REPORT_FILE, page.encode())


def _head(found: StudyResult) -> str:
    best, default = found.best, found.default
    parts = [f"<h1>Study {escape(found.name)}</h1>"]
    counts = dict.fromkeys(("completed", "stopped", "failed", "interrupted"), 0)
    for trial in found.trials:
        counts[trial.ending.status] += 1
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    if found.interrupted:
        text = (
            f"Not finished: {summary or 'no trial'} of {found.num_trials}. It goes on by --resume."
        )
        parts.append(f'<p class="warning">{escape(text)}</p>')
    if best:
        scores = f"{found.metric} {_score(best)}; the recipe as it is: {_score(default)}"
        text = f"Best trial: {best.number} ({_values(best)}), {scores}, both on validation."
        parts.append(f'<p class="verdict">{escape(text)}</p>')
        text = (
            "The best of many trials looks better than it is; only fresh seeds show "
            "what it is worth."
        )
        parts.append(f'<p class="faint">{escape(text)}</p>')
    seconds = sum(trial.ending.seconds for trial in found.trials)
    facts = (
        f"{len(found.trials)} trials ({summary}), sampler {found.config.sampler}, seed "
        f"{found.config.seed}; {seconds:,.0f} trial-seconds. Sharing saved {found.saved.stages} "
        f"stage runs, {found.saved.seconds:,.0f} s. Chosen by: {rule(found.config)}"
    )
    parts.append(f"<p>{escape(facts)}</p>")
    return "\n".join(parts)


def _winner(winner: Winner, found: StudyResult) -> list[str]:
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
        f'<p class="verdict">{escape(text[0].upper() + text[1:])}</p>',
        f"<p>{escape(f'Trained again on fresh seeds, {found.metric}:')}</p>",
        _table(columns, rows, best),
        f"<p>{escape(f'Trial {winner.trial}, tested once a fresh seed:')}</p>",
        _table(["metric", "mean", "lowest", "highest"], tests),
        f'<p class="faint">Finalists, tests and bundle took {winner.seconds:,.0f} s.</p>',
    ]


_EARLY = " (stopped early)"


def _trials(found: StudyResult) -> str:
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
    return _table(columns, rows, places[0] if places else None)


def _health_table(trials: Sequence[Trial], store: Store) -> str:
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
    return _table(["codebooks", "share codes, %", "error left", "least use, %", "trials"], rows)


def _score(trial: Trial | None) -> str:
    if trial is None or trial.ending.objective is None:
        return "none"
    return f"{trial.ending.objective:.4f}"


def _values(trial: Trial) -> str:
    return ", ".join(f"{path}={short(value)}" for path, value in trial.values.items())


def _drawn(figures: Figures) -> str:
    inner = "\n".join(_figure(caption, figure) for caption, figure in figures)
    return f'<div class="figures">{inner}</div>'


def _figure(caption: str, figure: go.Figure) -> str:
    fits = " class=fits" if figure.layout.width is None else ""
    return f"<figure{fits}>{_html(figure)}<figcaption>{escape(caption)}</figcaption></figure>"


def _html(figure: go.Figure) -> str:
    wide = figure.layout.width is not None
    figure.update_layout(**_LAYOUT)
    if wide:  # scrolls sideways, with room for the names of its axes
        figure.update_layout(margin={"l": 90, "r": 40, "t": 60, "b": 40})
    settings = {"responsive": not wide, "displaylogo": False, "displayModeBar": False}
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, config=settings)
    return html


def _section(title: str, *parts: str) -> str:
    body = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], best: int | None = None) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join(
        f"<tr{' class=best' if place == best else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for place, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}\n</table></div>'


def _page(title: str, sections: Sequence[str], *, scripted: bool) -> str:
    script = f"<script>{get_plotlyjs()}</script>" if scripted else ""
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n{script}\n</head>\n<body>\n"
        f"<main>\n{body}\n</main>\n{_FIT if scripted else ''}\n</body>\n</html>\n"
    )
