"""The knowledge stage: a catalogue in, texts of its items out, each asked for once in a lifetime.

Shapes: I items, N prompts of a block.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray

from itemese.core.artifacts import Counts, Folder
from itemese.core.cluster import connect
from itemese.core.errors import ConfigError
from itemese.knowledge.cache import TextCache, prompt_key
from itemese.knowledge.config import KnowledgeConfig
from itemese.knowledge.prompts import item_prompts, shown_columns, template_digest, template_name
from itemese.knowledge.writers import OUTPUT_RULE, ModelWriter

VERSION = 2

TABLE = "knowledge.parquet"

Answers = Callable[[KnowledgeConfig, list[str]], Iterable[dict[str, str]]]
"""Yields some prompts with their texts at a time, until all are answered."""

_LONGEST_BLOCK_SECONDS = 3600
"""Generating is slow on a CPU, and a first block waits for loading."""

logger = logging.getLogger(__name__)


def build_knowledge(
    config: KnowledgeConfig,
    sequences: Folder,
    cache: Folder,
    folder: Folder,
    *,
    answers: Answers | None = None,
) -> Counts:
    """Write the section's texts of every item.

    Only the catalogue is read, so no event of any split leaves a trace. An item without a word in
    the columns has no text, and neither has one that a model said nothing of: readers must say
    what they take instead.

    Args:
        config: The section.
        sequences: Holds ``catalog.parquet``, whose row is the item_index.
        cache: Texts of all runs, by model, template and prompt; filled while a model writes.
        folder: Receives ``knowledge.parquet``: ``item_id`` and a column for each text, null where
            there is none.
        answers: What asks the model; None is a pool of Ray actors.

    Returns:
        ``num_items``, ``author`` (the model, or ``template``), ``templates`` with their digests,
        and by text ``asked`` (prompts that were not in the cache), ``empty`` (items without a text)
        and ``repeated`` (prompts whose text is word for word that of another prompt: many mean a
        model that did not understand).

    Raises:
        ConfigError: No such template or column, or a model that cannot be had.
    """
    catalog = sequences.read_table("catalog.parquet")
    columns = shown_columns(catalog, config)
    names = {text: template_name(config, text) for text in config.texts}
    table: dict[str, Any] = {"item_id": catalog["item_id"]}
    asked: dict[str, int] = {}
    repeated: dict[str, int] = {}
    for text, name in names.items():
        prompts = list(item_prompts(catalog, columns, name))
        texts = dict(zip(prompts, prompts, strict=True))
        asked[text] = 0
        if config.writer == "model":
            kept = TextCache(
                cache,
                model=config.author,
                template=template_digest(name),
                settings=[OUTPUT_RULE, config.max_new_tokens, config.max_prompt_tokens],
            )
            asked[text] = _ask(config, prompts, kept, answers or _by_actors)
            texts = {p: kept.get(prompt_key(p)) or "" if p else "" for p in texts}
        table[text] = pa.array([texts[p] or None for p in prompts], pa.string())
        times = Counter(filter(None, texts.values()))
        repeated[text] = sum(count for count in times.values() if count > 1)
    written = pa.table(table)
    folder.write_table(TABLE, written)
    return {
        "num_items": catalog.num_rows,
        "author": config.author,
        "templates": {name: template_digest(name) for name in names.values()},
        "asked": asked,
        "empty": {text: written[text].null_count for text in names},
        "repeated": repeated,
    }


def _ask(config: KnowledgeConfig, prompts: list[str], kept: TextCache, answers: Answers) -> int:
    """Have every prompt answered that is not in the cache; return how many those were."""
    missing = [p for p in dict.fromkeys(prompts) if p and kept.get(prompt_key(p)) is None]
    if missing:
        logger.info("%s writes %d of %d texts", config.author, len(missing), len(prompts))
        for found in answers(config, missing):
            kept.add({prompt_key(prompt): text for prompt, text in found.items()})
    lost = sum(kept.get(prompt_key(prompt)) is None for prompt in missing)
    assert not lost, f"{lost} prompts came back without an answer"
    return len(missing)


def _by_actors(config: KnowledgeConfig, prompts: list[str]) -> Iterator[dict[str, str]]:
    """Let a pool of actors, each with a copy of the model, answer block by block."""
    connect()
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), resources.get("CPU", 1.0)
    if config.device == "cuda" and not gpus:
        message = "`knowledge.device` must be a device of the cluster; got 'cuda' without a GPU."
        raise ConfigError(message + " Set it to auto.")
    device = "cuda" if gpus and config.device != "cpu" else "cpu"
    num_blocks = -(-len(prompts) // config.batch_size)
    most = max(1, min(config.max_actors, num_blocks, gpus if device == "cuda" else int(cpus)))
    # Prompts of similar length stand together, which saves padding.
    table = pa.table({"prompt": sorted(prompts, key=len)})
    dataset = ray.data.from_arrow(table).map_batches(
        _Writer,
        fn_constructor_args=(config, device),
        batch_size=config.batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=1
        ),
        num_cpus=1.0 if cpus >= 2 else 0.5,
        num_gpus=1 if device == "cuda" else 0,
    )
    dataset.context.execution_no_progress_timeout_s = _LONGEST_BLOCK_SECONDS
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        if "fault" in batch.column_names:
            raise ConfigError(batch["fault"][0].as_py())
        pairs = (batch[name].to_pylist() for name in ("prompt", "text"))
        yield dict(zip(*pairs, strict=True))


class _Writer:
    """An actor: one copy of the model."""

    def __init__(self, config: KnowledgeConfig, device: str) -> None:
        self._config = config
        self._device = device

    @cached_property
    def _model(self) -> ModelWriter:
        return ModelWriter(self._config, self._device)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return ``prompt`` and ``text``, or a ``fault``: as a value it keeps its type."""
        prompts = block["prompt"].to_pylist()
        try:
            return pa.table({"prompt": prompts, "text": self._model.write(prompts)})
        except ConfigError as error:
            return pa.table({"fault": [str(error)]})
