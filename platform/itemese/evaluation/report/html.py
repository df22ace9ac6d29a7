"""The one page that every report is: its parts as data, and the template that shows them.

A page opens with its verdict, then come sections, then sections that are folded away. The template
escapes all text. A page is one file without any request: style inside, figures as images in data
URIs (where an SVG cannot run scripts), and a content security policy that forbids everything else.
"""

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined

MOST_BYTES = 1_500_000
"""A page that would be larger leaves folded figures out, the last ones first, and says so."""

_TEMPLATES = Environment(
    loader=PackageLoader("itemese.evaluation.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Note:
    """A paragraph; `style` is ``faint``, ``warning`` or nothing."""

    text: str
    style: str = ""

    def __bool__(self) -> bool:
        """Return whether there is anything to show."""
        return bool(self.text)


@dataclass(frozen=True)
class Table:
    """Cells as text, the first of a row its heading.

    Attributes:
        caption: What the table holds.
        columns: Headings.
        rows: Lists of cells.
        best: Places ``(row, column)`` of the best values.
        marks: Words behind the heading of a row, by its number.
        words: Columns of words, which stand at the left; numbers stand at the right.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: Collection[tuple[int, int]] = ()
    marks: Mapping[int, str] = field(default_factory=dict)
    words: Collection[int] = ()

    def __bool__(self) -> bool:
        """Return whether there is anything to show."""
        return bool(self.rows)

    def kind(self, row: int, column: int) -> str:
        """Return the style classes of a cell."""
        best = ["best"] if (row, column) in self.best else []
        return " ".join([*best, *(["words"] if column in self.words else [])])


@dataclass(frozen=True)
class Figure:
    """An SVG with its caption; the alternative text says what kind of image it is."""

    svg: str | None
    caption: str

    @property
    def data(self) -> str:
        """The image in base64."""
        return base64.b64encode((self.svg or "").encode()).decode()


class Figures:
    """Figures side by side where the page is wide enough; those without an image are left out."""

    def __init__(self, *figures: Figure) -> None:
        self.figures = [figure for figure in figures if figure.svg is not None]

    def __bool__(self) -> bool:
        """Return whether there is anything to show."""
        return bool(self.figures)


@dataclass(frozen=True)
class Facts:
    """Names and values, one pair a line."""

    pairs: Sequence[tuple[str, str]]

    def __bool__(self) -> bool:
        """Return whether there is anything to show."""
        return bool(self.pairs)


@dataclass(frozen=True)
class Text:
    """Text whose line breaks count, below a title."""

    title: str
    text: str


Part = Note | Table | Figures | Facts | Text


class Section:
    """A title and what stands below it; a section of empty parts is empty."""

    def __init__(self, title: str, *parts: Part) -> None:
        self.title = title
        self.parts = [part for part in parts if part]


def page(
    title: str,
    *,
    kind: str,
    verdict: str,
    notes: Sequence[Note] = (),
    sections: Sequence[Section] = (),
    folded: Sequence[Section] = (),
) -> str:
    """Return the whole page; empty parts and sections are left out.

    Args:
        title: What was run.
        kind: ``Run``, ``Comparison`` or ``Study``.
        verdict: The result in at most two sentences.
        notes: Below the verdict.
        sections: What everyone reads.
        folded: What is folded away on a screen; a print shows it.
    """
    shown = [section for section in sections if section.parts]
    details = [section for section in folded if section.parts]
    template = _TEMPLATES.get_template("report.html.jinja")
    while True:
        text = template.render(
            title=title,
            kind=kind,
            verdict=verdict,
            notes=[note for note in notes if note],
            sections=shown,
            folded=details,
        )
        drawn = [s for s in details if any(isinstance(part, Figures) for part in s.parts)]
        if len(text.encode()) <= MOST_BYTES or not drawn:
            return text
        details[details.index(drawn[-1])] = _without_figures(drawn[-1])


def _without_figures(section: Section) -> Section:
    """Return a section in which a note stands instead of the figures."""
    count = sum(len(part.figures) for part in section.parts if isinstance(part, Figures))
    note = Note(f"Figures left out: {count}. A page has at most {MOST_BYTES:,} bytes.", "faint")
    kept = [part for part in section.parts if not isinstance(part, Figures)]
    return Section(section.title, *kept, note)
