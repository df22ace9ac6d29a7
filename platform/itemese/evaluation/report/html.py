"""The few pieces of HTML that a report is put together from; every text is escaped here.

A page is one file without any request: style inside, figures as images in data URIs (where an
SVG cannot run scripts), and a content security policy that forbids everything else.
"""

import base64
from collections.abc import Collection, Sequence
from html import escape

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"

_STYLE = """
:root { color-scheme: light; --ink: #1f2937; --faint: #6b7280; --line: #e5e7eb; --tint: #f6f8fb; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-top: .8rem;
     border-top: 1px solid var(--line); }
p { margin: .4rem 0; max-width: 46rem; }
.faint { color: var(--faint); font-size: .875rem; }
.verdict { background: var(--tint); border-left: 4px solid #2166ac; padding: .5rem .8rem; }
.warning { background: #fef2f2; border-left: 4px solid #b91c1c; padding: .5rem .8rem; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--faint); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
td.best { font-weight: 700; color: #15803d; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .875rem; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
.figures { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; } figure img { width: 100%; max-width: 34rem; height: auto; display: block; }
figcaption { color: var(--faint); font-size: .8125rem; }
pre { background: var(--tint); padding: .7rem; overflow-x: auto; font-size: .8125rem; }
summary { cursor: pointer; padding: .3rem 0; }
@media print { details { display: block; } h2 { break-after: avoid; } }
"""


def document(title: str, sections: Sequence[str]) -> str:
    """Return the whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Return a titled section; empty if all its parts are."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; `kind` is ``faint``, ``verdict`` or ``warning``."""
    mark = f' class="{kind}"' if kind else ""
    return f"<p{mark}>{escape(text)}</p>"


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    best: Collection[tuple[int, int]] = (),
) -> str:
    """Return a table that scrolls sideways on a narrow screen; `best` are (row, column)."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td class="best">{escape(cell)}</td>'
            if (number, place) in best
            else f"<td>{escape(cell)}</td>"
            for place, cell in enumerate(row)
        )
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return names and values, one pair a line."""
    if not pairs:
        return ""
    inner = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f"<dl>{inner}</dl>"


def figure(svg: str | None, caption: str) -> str:
    """Return an SVG as an image whose caption is its alternative text; nothing for None."""
    if svg is None:
        return ""
    data = base64.b64encode(svg.encode()).decode()
    text = escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def figures(*items: str) -> str:
    """Return figures side by side where there is room."""
    inner = "\n".join(item for item in items if item)
    return f'<div class="figures">\n{inner}\n</div>' if inner else ""


def folded(summary: str, text: str) -> str:
    """Return a block of plain text that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"
