"""Texts that were written of items or of users, with the newest event that was shown.

Letter: N entities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError

Entity = Literal["item", "user"]

_SHOWN_UNTIL = ".shown_until"
"""A column that no text can be named like."""


@dataclass(frozen=True)
class Texts:
    """Texts of every item or every user.

    Attributes:
        entity: ``item`` or ``user``.
        key: N ids, in the order of the catalogue or of the users.
        text: By name of what was asked, N texts; None where nothing was written.
        cutoff: Newest event that a prompt showed, seconds UTC; None where prompts show none.
        shown_until: For each, the newest training event that its prompt may have shown, seconds
            UTC; None where there is none. None for all if prompts show no events.
    """

    entity: Entity
    key: Sequence[str]
    text: Mapping[str, Sequence[str | None]]
    cutoff: int | None = None
    shown_until: Sequence[int | None] | None = None

    def validate(self, key: Sequence[str]) -> None:
        """Raise DataError unless there is a row for each of these ids, in their order."""
        if list(self.key) != list(key):
            message = (
                f"`texts` must hold a row for each of {len(key)} {self.entity}s in their order; "
                f"got {len(self.key)} of others. Write the texts of this data set."
            )
            raise DataError(message)

    def write(self, folder: Folder) -> None:
        """Write ``<entity>.parquet`` and ``<entity>.json``."""
        columns = {name: pa.array(texts, pa.string()) for name, texts in self.text.items()}
        if self.shown_until is not None:
            columns[_SHOWN_UNTIL] = pa.array(self.shown_until, pa.int64())
        table = pa.table({"key": pa.array(self.key, pa.string()), **columns})
        folder.write_table(f"{self.entity}.parquet", table)
        folder.write_json(f"{self.entity}.json", {"cutoff": self.cutoff})

    @classmethod
    def read(cls, folder: Folder, entity: Entity) -> "Texts":
        """Read what `write` wrote."""
        table = folder.read_table(f"{entity}.parquet")
        text = {name: table[name].to_pylist() for name in table.column_names[1:]}
        shown_until = text.pop(_SHOWN_UNTIL, None)
        cutoff = folder.read_json(f"{entity}.json")["cutoff"]
        return cls(entity, table["key"].to_pylist(), text, cutoff, shown_until)

    @classmethod
    def read_all(cls, folder: Folder) -> dict[Entity, "Texts"]:
        """Read the texts of all entities that the artifact holds."""
        entities: tuple[Entity, ...] = ("item", "user")
        return {e: cls.read(folder, e) for e in entities if folder.exists(f"{e}.parquet")}
