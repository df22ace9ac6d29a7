"""Vectors of items and users, and the codes that name items.

Shape letters: I items, D vector size, C number of codebooks, L code length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError


@dataclass(frozen=True)
class Embeddings:
    """Vectors of items or users.

    Attributes:
        entity: ``"item"`` or ``"user"``.
        vectors [num_entities, D] float32: row = item_index (or user row).
        source: Model name and text columns, for reports.
        history_cutoff: Newest event that user vectors may have seen, seconds UTC; None for items.
        parts: Name and width of each source, in the order of its columns; empty if unknown.
        described [num_entities] bool: Which have a text; the text vector of the others is the mean.
            None if all have, or if it is unknown.
        shown_until [num_entities] int64: Newest training event that each one was made from, seconds
            UTC; -1 if none. None if they were made from no events, or if it is unknown.
    """

    entity: str
    vectors: np.ndarray
    source: str
    history_cutoff: int | None = None
    parts: tuple[tuple[str, int], ...] = ()
    described: np.ndarray | None = None
    shown_until: np.ndarray | None = None

    def part(self, name: str) -> np.ndarray:
        """Return the numbers of one source, ``[num_entities, width]``; see `part_of`."""
        return self.vectors[:, part_of(self.parts, name)]

    def validate(self, num_entities: int) -> None:
        """Raise DataError unless there is one finite row for each entity."""
        if self.vectors.ndim != 2 or len(self.vectors) != num_entities:
            message = (
                f"`embeddings.vectors` must be [{num_entities}, dim]; got "
                f"{list(self.vectors.shape)}. Embed this catalogue."
            )
            raise DataError(message)
        bad = np.flatnonzero(~np.isfinite(self.vectors).all(axis=1))
        if len(bad):
            message = (
                f"`embeddings.vectors` must be finite; got NaN or infinity in {len(bad)} rows, "
                f"first {int(bad[0])}. Check the text of that {self.entity}."
            )
            raise DataError(message)

    def write(self, folder: Folder) -> None:
        """Write ``embeddings.safetensors`` and ``embeddings.json``."""
        tensors = {"vectors": self.vectors}
        for name in ("described", "shown_until"):
            if getattr(self, name) is not None:
                tensors[name] = getattr(self, name)
        folder.write_tensors("embeddings.safetensors", tensors)
        facts = {"entity": self.entity, "source": self.source, "cutoff": self.history_cutoff}
        folder.write_json("embeddings.json", {**facts, "parts": self.parts})

    @classmethod
    def read(cls, folder: Folder) -> "Embeddings":
        """Read what `write` wrote."""
        facts = folder.read_json("embeddings.json")
        tensors = {n: t.numpy() for n, t in folder.read_tensors("embeddings.safetensors").items()}
        parts = tuple((name, width) for name, width in facts.get("parts", []))
        about = facts["entity"], tensors["vectors"], facts["source"], facts["cutoff"]
        return cls(*about, parts, tensors.get("described"), tensors.get("shown_until"))


def part_of(parts: Sequence[tuple[str, int]], name: str) -> slice:
    """Return which columns of an `Embeddings` a source fills, with all its parts ``<source>.<x>``.

    >>> part_of([("text", 384), ("recommender.a", 64), ("recommender.b", 8)], "recommender")
    slice(384, 456, None)
    """
    ends = list(accumulate((width for _, width in parts), initial=0))
    own = [n for n, (found, _) in enumerate(parts) if f"{found}.".startswith(f"{name}.")]
    if own:
        return slice(ends[own[0]], ends[own[-1] + 1])
    known = ", ".join(found for found, _ in parts) or "none that is named"
    message = f"`embeddings` must hold the source {name!r}; got {known}. Add it to the recipe, as "
    raise DataError(message + f"`embeddings.{name}`, or leave it out where it is asked for.")


@dataclass(frozen=True)
class Codes:
    """What a quantizer gives each item, before disambiguation.

    Attributes:
        codes [I, C] int32: ``codes[i, c]`` in ``0..code_sizes[c] - 1``.
        code_sizes: C codebook sizes.
        layout: ``"residual"``, ``"tree"``, ``"parallel"``, or ``"by source"`` for several of one.
        collision_rate: Share of items whose codes another item has too.
    """

    codes: np.ndarray
    code_sizes: tuple[int, ...]
    layout: str
    collision_rate: float


@dataclass(frozen=True)
class SemanticIds:
    """The tuple of codes that names one item.

    Attributes:
        codes [I, L] int32: rows are unique; L includes a disambiguation code if there is one.
        code_sizes: L sizes, so that position l draws from ``0..code_sizes[l] - 1``.
        num_predicted: Codes that a model predicts; None for all L. The codes after them
            number items that share the first ones: such items have one score, and the order of
            these (`codebooks.numbering`) breaks their tie.
        columns: Starts and stops of the coded columns of the embeddings; None: all, (): drawn.
    """

    codes: np.ndarray
    code_sizes: tuple[int, ...]
    num_predicted: int | None = None
    columns: tuple[tuple[int, int], ...] | None = None

    @property
    def code_length(self) -> int:
        """Codes an item, L."""
        return int(self.codes.shape[1])

    @property
    def predicted(self) -> np.ndarray:
        """Codes that a model predicts, ``[I, P]``; rows may be equal if P < L."""
        return self.codes[:, : self.num_predicted]

    @property
    def predicted_sizes(self) -> tuple[int, ...]:
        """Sizes of those codes, P numbers."""
        return self.code_sizes[: self.num_predicted]

    def write(self, folder: Folder) -> None:
        """Write ``semantic_ids.safetensors`` and ``semantic_ids.json``."""
        folder.write_tensors("semantic_ids.safetensors", {"codes": self.codes.astype(np.int32)})
        facts = {name: getattr(self, name) for name in ("code_sizes", "num_predicted", "columns")}
        folder.write_json("semantic_ids.json", facts)

    @classmethod
    def read(cls, folder: Folder) -> "SemanticIds":
        """Read what `write` wrote."""
        codes = folder.read_tensors("semantic_ids.safetensors")["codes"].numpy()
        facts = folder.read_json("semantic_ids.json")
        coded = facts.get("columns")
        columns = None if coded is None else tuple((start, stop) for start, stop in coded)
        return cls(codes, tuple(facts["code_sizes"]), facts.get("num_predicted"), columns)

    def validate(self, num_items: int) -> None:
        """Raise DataError unless each item has one in-range tuple of its own."""
        if self.codes.shape != (num_items, len(self.code_sizes)):
            message = (
                f"`semantic_ids.codes` must be [{num_items}, {len(self.code_sizes)}]; got "
                f"{list(self.codes.shape)}. Make codes for this catalogue."
            )
            raise DataError(message)
        if (self.codes < 0).any() or (self.codes >= np.array(self.code_sizes)).any():
            message = f"`semantic_ids.codes` must lie below {self.code_sizes}; rebuild codebooks."
            raise DataError(message)
        if len(np.unique(self.codes, axis=0)) != num_items:
            message = "`semantic_ids.codes` must be unique rows; set `codebooks.disambiguation`."
            raise DataError(message)
