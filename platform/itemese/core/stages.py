"""What a stage is: how one kind of artifact is made from others, and how it is read.

The table of all stages is `pipeline.stages.STAGES`. A package outside this one adds an artifact by
a module that defines `STAGE`, a `StageSpec`; a method names that module among its `needs`, and a
recipe gives its settings under ``artifacts``.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from itemese.core.artifacts import Counts, Folder
from itemese.core.config import Config
from itemese.core.errors import ArtifactError
from itemese.core.fields import Fields
from itemese.core.parts import Parts
from itemese.core.users import Users
from itemese.core.vectors import Embeddings, SemanticIds


@dataclass(frozen=True)
class Surroundings:
    """What a build may use beside its settings and its inputs.

    Attributes:
        seed: The experiment's.
        data_seed: Of simulated logs and shuffled ties.
        root: The storage, for caches that outlive one artifact.
    """

    seed: int
    data_seed: int
    root: Folder


@dataclass(frozen=True)
class Reader:
    """How an artifact is read.

    Attributes:
        read: Returns what a method is given from the artifact's folder; a function of a module or a
            class, because it travels to workers.
        answers: Whether a trained method reads the artifact when it answers. A bundle then holds
            it: what `read` returns has ``write(folder)``, which writes plain files.
    """

    read: Callable[[Folder], Any]
    answers: bool = False


@dataclass(frozen=True)
class StageSpec:
    """How one kind of artifact is made and read.

    Attributes:
        name: Of the stage, which names its folder.
        version: Raised by hand where a change outside the source (a library, a format) changes what
            is written; the source is part of the key anyway.
        build: ``(settings, inputs, surroundings, folder) -> counts``: fills the folder from the
            input folders by stage name. A function of a module, not of another function.
        code: Modules whose source, with all that they import, decides the output; the module of
            `build` by default.
        reader: Makes what a method is given from the artifact's folder.
        section: The experiment's section that decides the output, dotted; None for no section.
        settings: Class of the settings of a stage from outside this package.
        inputs: Names of the stages whose artifacts it is made from.
        also: ``settings -> names`` of further inputs that only some settings read.
        seeds: Which seeds decide the output: ``seed``, ``data_seed``.
        outside: Hashes what lies outside the storage (raw files, weights): ``(settings,
            surroundings) -> text``; None where nothing does.
    """

    name: str
    version: int
    build: Callable[[Any, Mapping[str, Folder], Surroundings, Folder], Counts]
    reader: Reader
    code: tuple[str, ...] = ()
    section: str | None = None
    settings: type[Config] | None = None
    inputs: tuple[str, ...] = ()
    also: Callable[[Any], tuple[str, ...]] | None = None
    seeds: tuple[str, ...] = ()
    outside: Callable[[Any, Surroundings], str] | None = None


class Loadable(Protocol):
    """Something that a method needs, where it lies; small enough to travel to workers."""

    def load(self) -> Any:
        """Read it."""


@dataclass(frozen=True)
class Stored:
    """An artifact's folder and what reads it."""

    folder: Folder
    reader: Reader

    def load(self) -> Any:
        """Read the artifact."""
        return self.reader.read(self.folder)


def stored_folder(artifacts: Mapping[str, Loadable], name: str) -> Folder | None:
    """Return where an artifact lies that is read by shards; None if it is not among these."""
    found = artifacts.get(name)
    return found.folder if isinstance(found, Stored) else None


def _read_parts(folder: Folder) -> Parts:
    return Parts.read(folder, lambda need, place: reader_of(need).read(place))


READERS: dict[str, Reader] = {
    "embeddings": Reader(Embeddings.read, answers=True),
    "codebooks": Reader(SemanticIds.read, answers=True),
    "users": Reader(Users.read, answers=True),
    "fields": Reader(Fields.read, answers=True),
    "parts": Reader(_read_parts, answers=True),
}
"""Readers of the artifacts that a bundle may hold; `pipeline.stages.STAGES` has the others."""


def outside_stage(module: str) -> StageSpec | None:
    """Return the `STAGE` of a module outside this package; None if there is none."""
    try:
        found = getattr(importlib.import_module(module), "STAGE", None)
    except ModuleNotFoundError as error:
        if not module.startswith(error.name or module):
            raise  # the module is there, and imports something that is not
        return None
    return found if isinstance(found, StageSpec) else None


def reader_of(need: str) -> Reader:
    """Return the reader of an artifact that a bundle may hold.

    Args:
        need: A key of `READERS`, or the dotted path of a module that defines ``STAGE``.

    Raises:
        ArtifactError: It is not known, or is of a package that is not installed here.
    """
    stage = outside_stage(need) if "." in need else None
    if need not in READERS and stage is None:
        message = (
            f"`bundle.artifacts` must be known artifacts or modules that define STAGE; got "
            f"{need!r}. Install the package that it is from."
        )
        raise ArtifactError(message)
    return stage.reader if stage else READERS[need]
