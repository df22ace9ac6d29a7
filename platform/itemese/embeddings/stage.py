"""The embeddings stage: the catalogue's text in, one vector an item out, on a pool of Ray actors.

Where the recipe asks for them, vectors of what a language model wrote of the item and of training
behaviour are appended to that of the text (`recommended` appends those of a trained recommender, in
a stage of its own).

Shapes: I items, D vector size, N rows of a block.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from itemese.core.artifacts import Counts, Folder
from itemese.core.cluster import connect
from itemese.core.config import nearest
from itemese.core.errors import ConfigError, DataError
from itemese.core.randomness import numpy_generator
from itemese.core.tasks import stream_blocks
from itemese.core.texts import Texts
from itemese.core.vectors import Embeddings
from itemese.embeddings.assembly import Assembly
from itemese.embeddings.collaborative import collaborative_vectors
from itemese.embeddings.config import EmbeddingsConfig, KnowledgeVectorsConfig, TextModelConfig
from itemese.embeddings.models import TextModel, load_model, locate
from itemese.embeddings.text import item_texts, text_columns

VERSION = 3

_BLOCK_ROWS = 512
"""Items an actor takes at once: enough to sort by length, few enough to end together."""

_MOST_BLOCKS = 8192
"""Very large catalogues get larger blocks instead of more."""

_LONGEST_BLOCK_SECONDS = 1800
"""A pool that brings nothing back for so long is stuck: no free CPU, or far too large a model.
Ray's own limit may be a minute, and a first block waits for a download and for loading."""

logger = logging.getLogger(__name__)


def build_embeddings(
    config: EmbeddingsConfig,
    sequences: Folder,
    folder: Folder,
    knowledge: Folder | None = None,
) -> Counts:
    """Embed every item of the catalogue.

    Items without any text in `columns` get the mean vector of the others and are counted. No
    event of validation or test is read: text is free of events, and behaviour is that of training.

    Args:
        config: The section.
        sequences: Holds ``catalog.parquet``, whose row is the item_index, and the histories.
        folder: Receives ``embeddings.safetensors`` and ``embeddings.json``.
        knowledge: The knowledge artifact, where the section reads it.

    Returns:
        ``num_items``, ``dim``, ``items_without_text``, ``columns`` read, ``columns_absent``,
        ``actors`` (at most), ``device``, ``items_per_second`` (model loading included); with
        knowledge also ``items_without_knowledge``.

    Raises:
        ConfigError: No such column, or a model that cannot be had.
        DataError: An empty catalogue, no text at all, or vectors that are not finite.
    """
    found = embed_table(config, sequences, "catalog.parquet", config.columns, entity="item")
    num_items, vectors = len(found.vectors), found.vectors
    source = f"{config.model} of {', '.join(found.columns)}"
    sources, counts = [("text", vectors.shape[1])], {}
    if config.knowledge is not None:
        assert knowledge is not None, "the stage's inputs have it where the section reads it"
        written = _written(config, config.knowledge, knowledge)
        vectors = np.concatenate([vectors, written.vectors], axis=1)
        source += f" and of {', '.join(written.columns)}"
        sources.append(("knowledge", written.vectors.shape[1]))
        counts["items_without_knowledge"] = int((~written.described).sum())
    if config.collaborative:
        behaviour = collaborative_vectors(config.collaborative, sequences, num_items)
        vectors = np.concatenate([vectors, config.collaborative.weight * behaviour], axis=1)
        source += " and training behaviour"
        sources.append(("collaborative", behaviour.shape[1]))
    embeddings = Embeddings(
        "item", vectors, source, parts=tuple(sources), described=found.described
    )
    embeddings.validate(num_items)
    embeddings.write(folder)
    return {
        "num_items": num_items,
        "dim": int(vectors.shape[1]),
        "items_without_text": int((~found.described).sum()),
        "columns": found.columns,
        "columns_absent": [c for c in config.columns if c not in found.columns],
        **found.pool,
        **counts,
    }


def _written(
    config: TextModelConfig, chosen: KnowledgeVectorsConfig, knowledge: Folder
) -> "EmbeddedTable":
    """Embed what was written of the items, scaled, and given to others if that is asked for."""
    texts = Texts.read(knowledge, "item")
    unknown = [name for name in chosen.texts if name not in texts.text]
    if unknown:
        message = (
            f"`embeddings.knowledge.texts` must be texts of `knowledge.texts`; got {unknown}. "
            f"{nearest(unknown[0], texts.text)}"
        )
        raise ConfigError(message)
    found = embed_table(config, knowledge, "item.parquet", chosen.texts, entity="item")
    vectors, described = chosen.weight * found.vectors, found.described
    if chosen.shuffled:
        order = numpy_generator(0, "embeddings/shuffled").permutation(len(vectors))
        vectors, described = vectors[order], described[order]
    return EmbeddedTable(vectors, described, found.columns, found.pool)


@dataclass(frozen=True)
class EmbeddedTable:
    """The text vectors of a table's rows.

    Attributes:
        vectors [N, D] float32: Rows without text have the mean of the others.
        described [N] bool: Rows with text.
        columns: Columns that were read.
        pool: ``actors`` (at most), ``device``, ``items_per_second`` (model loading included).
    """

    vectors: np.ndarray
    described: np.ndarray
    columns: list[str]
    pool: dict[str, Any]


def embed_table(
    config: TextModelConfig, folder: Folder, name: str, wanted: Sequence[str], *, entity: str
) -> EmbeddedTable:
    """Embed the text of each row of a Parquet file on a pool of Ray actors.

    Args:
        config: The model.
        folder: Holds the file.
        name: Of the file.
        wanted: Columns to read; those that are there are joined to one text.
        entity: What a row describes, for messages.

    Raises:
        ConfigError: No such column, or a model that cannot be had.
        DataError: No row, no text at all.
    """
    locate(config.model)
    filesystem, path = folder.filesystem()
    with pq.ParquetFile(f"{path}/{name}", filesystem=filesystem) as file:
        num_rows = file.metadata.num_rows
        if not num_rows:
            message = f"`{name}` must hold {entity}s; got none. Lower `sequences.min_item_events`."
            raise DataError(message)
        columns = text_columns(file.schema_arrow, wanted)
        started = time.monotonic()
        connect()
        # The object store holds the text (and spills it), not this process.
        blocks = [ray.put(block) for block in _blocks(file, columns, num_rows)]
    device, pool = _plan(config, len(blocks))
    # PyTorch takes as many threads as the actor has CPUs: Ray sets OMP_NUM_THREADS.
    dataset = ray.data.from_arrow_refs(blocks).map_batches(
        _Embedder,
        fn_constructor_args=(config, columns, device),
        batch_size=None,
        batch_format="pyarrow",
        **pool,
    )
    parts = _collect(dataset, num_rows)
    vectors = parts.finish()
    seconds = time.monotonic() - started
    if config.normalize:
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    without = int((~parts.described).sum())
    if without:
        logger.info("%d of %d %ss have no text and get the mean vector", without, num_rows, entity)
    facts = {
        "actors": pool["compute"].max_size,
        "device": device,
        "items_per_second": round(num_rows / seconds, 1),
    }
    return EmbeddedTable(vectors, parts.described, columns, facts)


class _Embedder:
    """An actor: one copy of the model, one block of items at a time."""

    def __init__(self, config: TextModelConfig, columns: list[str], device: str) -> None:
        self._config = config
        self._columns = columns
        self._device = device

    @cached_property
    def _model(self) -> TextModel:
        return load_model(self._config, self._device)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return ``item_index``, ``described`` and ``vector`` of each row, or a ``fault``.

        A fault travels as a value, and the model is loaded here and not in the constructor,
        because an exception loses its type on the way and Ray would try again first.
        """
        try:
            return _embedded(block, self._model, self._columns, self._config.max_tokens)
        except ConfigError as error:
            return pa.table({"fault": [str(error)]})


def _embedded(block: pa.Table, model: TextModel, columns: list[str], max_tokens: int) -> pa.Table:
    """Embed one block; rows without text get a vector of zeros."""
    texts = item_texts(block, columns, max_tokens)
    described = np.array([bool(text) for text in texts])
    # Members of a cluster share a text, which is read once. One stand-in keeps the width known
    # where a whole block has no text.
    place = {text: number for number, text in enumerate(dict.fromkeys(filter(None, texts)))}
    some = model.encode(list(place) or ["item"])
    vectors = np.zeros((len(texts), some.shape[1]), dtype=np.float32)
    vectors[described] = some[[place[text] for text in texts if text]]
    return pa.table(
        {
            "item_index": block["item_index"],
            "described": pa.array(described),
            "vector": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), some.shape[1]),
        }
    )


def _blocks(file: pq.ParquetFile, columns: list[str], num_items: int) -> Iterator[pa.Table]:
    """Yield the catalogue's text in blocks, each row with its item_index."""
    rows = max(_BLOCK_ROWS, -(-num_items // _MOST_BLOCKS))
    start = 0
    for batch in file.iter_batches(batch_size=rows, columns=columns):
        index = pa.array(np.arange(start, start + batch.num_rows))
        start += batch.num_rows
        yield pa.Table.from_batches([batch]).append_column("item_index", index)


def _plan(config: TextModelConfig, num_blocks: int) -> tuple[str, dict[str, Any]]:
    """Choose the device and the actor pool for this cluster.

    Returns:
        The device, and the resource arguments of ``map_batches``.
    """
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), resources.get("CPU", 1.0)
    if config.device == "cuda" and not gpus:
        message = "`embeddings.device` must be a device of the cluster; got 'cuda' without a GPU."
        raise ConfigError(message + " Set it to auto.")
    device = "cuda" if gpus and config.device != "cpu" else "cpu"
    most = max(1, min(config.max_actors, num_blocks, gpus if device == "cuda" else int(cpus)))
    # One actor is enough to begin, so a busy cluster delays this stage but cannot block it. One
    # block in flight each: blocks last seconds, and a queue behind one actor would idle another.
    compute = ray.data.ActorPoolStrategy(
        min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=1
    )
    # A cluster of one CPU keeps half of it for whatever else must run meanwhile.
    pool = {"compute": compute, "num_cpus": 1.0 if cpus >= 2 else 0.5}
    return device, pool | ({"num_gpus": 1} if device == "cuda" else {})


def _collect(dataset: ray.data.Dataset, num_items: int) -> Assembly:
    """Run the dataset and put its rows back in order.

    Raises:
        ConfigError: An actor could not load the model.
        DataError: A row came twice.
    """
    dataset.context.execution_no_progress_timeout_s = _LONGEST_BLOCK_SECONDS
    parts = Assembly(num_items)
    for batch in stream_blocks(dataset):
        if "fault" in batch.column_names:
            raise ConfigError(batch["fault"][0].as_py())
        vectors = batch["vector"].combine_chunks().flatten().to_numpy()
        index, described = batch["item_index"].to_numpy(), batch["described"].to_numpy()
        parts.add(index, vectors.reshape(len(index), -1), described)
    return parts
