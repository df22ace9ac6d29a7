"""Vectors of the texts that were written of items and of users.

Shapes: N entities, U users, D vector size.
"""

import numpy as np

from itemese.core.artifacts import Counts, Folder
from itemese.core.texts import Entity, Texts
from itemese.core.vectors import Embeddings
from itemese.embeddings.config import TextModelConfig
from itemese.embeddings.stage import embed_table
from itemese.embeddings.users import with_unknown

VERSION = 2


def build_text_embeddings(config: TextModelConfig, knowledge: Folder, folder: Folder) -> Counts:
    """Embed the texts of each entity of a knowledge artifact; several texts of one are joined.

    Items without a text have the mean of the others; for users see `users.with_unknown`. Vectors
    have the cutoff of their texts.

    Args:
        config: The section.
        knowledge: Holds the texts.
        folder: Receives an embeddings artifact in ``item`` and in ``user``, as there are texts.

    Returns:
        By entity ``num``, ``dim``, ``without_text``, ``columns``, ``cutoff``.

    Raises:
        ConfigError: A model that cannot be had.
        DataError: No text at all of an entity, or vectors that are not finite.
    """
    counts: Counts = {}
    for entity, texts in Texts.read_all(knowledge).items():
        name = f"{entity}.parquet"
        found = embed_table(config, knowledge, name, list(texts.text), entity=entity)
        vectors = found.vectors
        if entity == "user":
            vectors = with_unknown(vectors, found.described)
        source = f"{config.model} of {', '.join(found.columns)}"
        described, shown = found.described, texts.shown_until
        until = None if shown is None else np.array([-1 if t is None else t for t in shown])
        if entity == "user":
            described = np.concatenate([[False], described])
            until = None if until is None else np.concatenate([[-1], until])
        whole = Embeddings(
            entity, vectors, source, texts.cutoff, described=described, shown_until=until
        )
        whole.validate(len(vectors))
        whole.write(folder.child(entity))
        counts[entity] = {
            "num": len(found.vectors),
            "dim": int(vectors.shape[1]),
            "without_text": int((~found.described).sum()),
            "columns": found.columns,
            "cutoff": texts.cutoff,
        }
    return counts


def read_text_embeddings(folder: Folder) -> dict[Entity, Embeddings]:
    """Read the vectors of each entity that the artifact holds."""
    entities: tuple[Entity, ...] = ("item", "user")
    homes = {entity: folder.child(entity) for entity in entities}
    return {e: Embeddings.read(home) for e, home in homes.items() if home.names(".json")}
