"""The parts of a report as data, and the template that shows them; the template escapes all text.

A page is one file without any request: style inside, figures as images in data URIs (where an
SVG cannot run scripts), and a content security policy that forbids everything else.
"""

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

_TEMPLATES = Environment(
    loader=PackageLoader("itemese.evaluation.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Note:
    """A paragraph; `style` is ``faint``, ``verdict``, ``warning`` or nothing."""

    text: str
    style: str = ""

    def __bool__(self) -> bool:
        """Return whether there is anything to show."""
        return bool(self.text)


@dataclass(frozen=True)
class Table:
    """Cells as text; `best` are the places ``(row, column)`` of the best values."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: Collection[tuple[int, int]] = ()

    def __bool__(self) -> bool:
        """Return whether there is anything to show."""
        return bool(self.rows)


@dataclass(frozen=True)
class Figure:
    """An SVG with its caption, which is the image's alternative text too."""

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
class Folded:
    """Plain text below a line that opens it."""

    summary: str
    text: str


Part = Note | Table | Figures | Facts | Folded


class Section:
    """A title and what stands below it; a section of empty parts is empty."""

    def __init__(self, title: str, *parts: Part) -> None:
        self.title = title
        self.parts = [part for part in parts if part]


def page(title: str, opening: Sequence[Part], sections: Sequence[Section]) -> str:
    """Return the whole page; empty parts and sections are left out."""
    template = _TEMPLATES.get_template("report.html.jinja")
    return template.render(
        title=title,
        opening=[part for part in opening if part],
        sections=[section for section in sections if section.parts],
    )
