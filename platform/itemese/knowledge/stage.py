"""The knowledge stage: texts of items and of users, written once for each distinct prompt."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray

from itemese.core.artifacts import Counts, Folder
from itemese.core.cluster import connect
from itemese.core.clusters import Clusters
from itemese.core.errors import ConfigError
from itemese.core.schema import Histories, Split
from itemese.core.tasks import stream_blocks
from itemese.core.texts import Texts
from itemese.core.users import Users
from itemese.knowledge.cache import Parts, TextCache, Written, prompt_key
from itemese.knowledge.clusters import described_items, described_users
from itemese.knowledge.config import KnowledgeConfig, UserTextsConfig
from itemese.knowledge.endpoint import write_by_endpoint
from itemese.knowledge.prompts import (
    cluster_prompts,
    domain_of,
    item_prompts,
    item_words,
    shown_columns,
    template_digest,
    template_name,
    user_prompts,
)
from itemese.knowledge.writers import ModelWriter, writes_alike

VERSION = 5

Answers = Callable[[KnowledgeConfig, list[str], Parts], Iterable[dict[str, Written]]]
"""Yields some prompts with their texts at a time, until all are answered; each was added to the
parts before it is yielded."""

Prompts = Callable[[str], Iterator[str]]
"""Yields the prompt of each entity, in order, from a template's file; "" where none is asked."""

_LONGEST_BLOCK_SECONDS = 3600
"""Generating is slow on a CPU, and a first block waits for loading."""

logger = logging.getLogger(__name__)


def build_knowledge(
    config: KnowledgeConfig,
    sequences: Folder,
    users: Folder,
    cache: Folder,
    folder: Folder,
    *,
    clusters: Folder | None = None,
    answers: Answers | None = None,
) -> Counts:
    """Write the section's texts of every item and, if asked, of every user.

    Prompts of items show the catalogue only. Prompts of users show training events and what is
    given of held-out users, within ``users.share`` and ``users.cutoff``, so no event of validation
    or test leaves a trace. An item without a word in
    the columns has no text, nor has a user without a word or an event, nor one that a model
    answered with nothing: readers must decide what they take instead.

    Args:
        config: The section.
        sequences: Holds ``catalog.parquet``, whose row is the item_index, and the histories.
        users: The users artifact of these histories; read for texts of users.
        cache: Texts of all runs, by model, template and prompt; filled while a model writes.
        folder: Receives what `core.texts.Texts` writes of each entity.
        clusters: Those of items and users that share a text; None if the section has none.
        answers: What asks the model; None is the endpoint, or a pool of Ray actors.

    Returns:
        ``author`` (the model, or ``template``), ``templates`` with their digests, and by entity
        ``num``, by text ``asked`` (prompts that were not in the cache), their ``prompt_tokens``,
        ``tokens`` and ``seconds`` (of a batch, shared among its rows), ``empty`` (entities without
        a text), ``repeated`` (prompts whose text is word for word that of another prompt: many mean
        a model that did not understand), ``cut`` (prompts whose text the longest length ended) and
        ``shortened`` (prompts that lost their oldest events); of users also ``cutoff``, the newest
        event that was shown.

    Raises:
        ConfigError: No such template or column, or a model that cannot be had.
    """
    names = [template_name(config, text) for text in config.template_names]
    of_items, of_users = names[: len(config.texts)], names[len(config.texts) :]
    counts: Counts = {
        "author": config.author,
        "templates": {name: template_digest(name) for name in names},
    }
    catalog = sequences.read_table("catalog.parquet")
    columns = shown_columns(catalog, config)
    items = item_words(catalog, columns)
    domain = domain_of(config) if config.domain else None
    answers = answers or (_by_actors if config.endpoint is None else write_by_endpoint)
    write = _Writing(config, cache, answers)
    if config.texts:
        groups = Clusters.read(clusters, "item") if clusters else None
        described = described_items(groups, catalog, columns, items) if groups else []

        def item_texts(name: str) -> Iterator[str]:
            if groups is None:
                return item_prompts(items, name, domain)
            return _shared(groups, cluster_prompts(described, name, domain))

        wanted = dict(zip(config.texts, of_items, strict=True))
        texts, counts["item"] = write.all_of(wanted, item_texts)
        Texts("item", catalog["item_id"].to_pylist(), texts).write(folder)
    if config.users is not None:
        people, section = Users.read(users), config.users
        words = item_words(catalog, shown_columns(catalog, config, of_users=True))
        shown = [column for column in section.columns if column in people.table.column_names]
        crowds = Clusters.read(clusters, "user") if clusters else None
        about = people.table.select(shown)
        known = described_users(crowds, about, sequences, words, section) if crowds else []

        def user_texts(name: str) -> Iterator[str]:
            if crowds is None:
                return _prompts_of_users(section, sequences, about, words, name, domain)
            return _shared(crowds, cluster_prompts(known, name, domain))

        wanted = dict(zip(section.texts, of_users, strict=True))
        texts, counts["user"] = write.all_of(wanted, user_texts)
        cutoff, until = _shown_until(sequences, section)
        ids = people.table["user_id"].to_pylist()
        Texts("user", ids, texts, cutoff, until).write(folder)
        counts["user"]["cutoff"] = cutoff
    return counts


def _shared(groups: Clusters, prompts: Iterator[str]) -> Iterator[str]:
    """Yield for each entity the prompt of its cluster."""
    of_cluster = list(prompts)
    return (of_cluster[place] if place >= 0 else "" for place in groups.cluster.tolist())


def _prompts_of_users(
    config: UserTextsConfig,
    sequences: Folder,
    people: pa.Table,
    items: list[dict[str, str]],
    name: str,
    domain: dict[str, Any] | None,
) -> Iterator[str]:
    """Yield each user's prompt, shard by shard; `people` holds the columns that are shown."""
    start = 0
    for block in Histories.stream(sequences):
        rows = people.slice(start, block.num_users).to_pylist() if people.column_names else None
        start += block.num_users
        yield from user_prompts(
            block.known(config.cutoff, config.share),
            rows or [{}] * block.num_users,
            items,
            name,
            max_events=config.max_events,
            domain=domain,
        )


def _shown_until(sequences: Folder, config: UserTextsConfig) -> tuple[int | None, list[int | None]]:
    """Return the newest event that any prompt may show, and of each user the newest training one.

    Both are seconds UTC, None where there is none.
    """
    newest: list[int] = []
    until: list[int | None] = []
    for block in Histories.stream(sequences):
        shown = block.known(config.cutoff, config.share)
        newest += [int(shown.timestamp.max())] if len(shown.timestamp) else []
        trained = shown.only(Split.TRAIN)
        last = trained.offsets[1:] - 1
        times = trained.timestamp[last[trained.lengths() > 0]].tolist()
        found = iter(times)
        until += [next(found) if size else None for size in trained.lengths().tolist()]
    return max(newest, default=None), until


class _Writing:
    """Writes texts by the section's writer and its cache."""

    def __init__(self, config: KnowledgeConfig, cache: Folder, answers: Answers) -> None:
        self._config = config
        self._cache = cache
        self._answers = answers

    def all_of(
        self, names: dict[str, str], prompts: Prompts
    ) -> tuple[dict[str, list[str | None]], Counts]:
        """Write each text of every entity; return the texts and the counts of the stage."""
        texts: dict[str, list[str | None]] = {}
        costs = ("asked", "prompt_tokens", "tokens", "seconds", "cut", "shortened", "repeated")
        counts: Counts = {name: dict.fromkeys(names, 0) for name in costs}
        for text, name in names.items():
            if self._config.writer == "template":
                texts[text] = [prompt or None for prompt in prompts(name)]
                continue
            kept = TextCache(
                Parts(
                    self._cache,
                    model=self._config.author,
                    template=template_digest(name),
                    settings=writes_alike(self._config),
                )
            )
            asked = self._ask(prompts(name), kept)
            counts["asked"][text] = len(asked)
            for cost in ("prompt_tokens", "tokens", "seconds"):
                counts[cost][text] = round(sum(getattr(one, cost) for one in asked), 3)
            keys = [prompt_key(prompt) if prompt else "" for prompt in prompts(name)]
            found = {key: one for key in keys if (one := kept.get(key)) is not None}
            for fault in ("cut", "shortened"):
                counts[fault][text] = sum(getattr(one, fault) for one in found.values())
            texts[text] = [(found[key].text or None) if key in found else None for key in keys]
            times = Counter(one.text for one in found.values() if one.text)
            counts["repeated"][text] = sum(count for count in times.values() if count > 1)
        first = next(iter(texts.values()))
        empty = {text: sum(one is None for one in found) for text, found in texts.items()}
        return texts, {"num": len(first), **counts, "empty": empty}

    def _ask(self, prompts: Iterator[str], kept: TextCache) -> list[Written]:
        """Have every prompt answered that is not in the cache; return what was written."""
        new = (p for p in prompts if p and kept.get(prompt_key(p)) is None)
        missing = list(dict.fromkeys(new))
        if missing:
            logger.info("%s writes %d texts", self._config.author, len(missing))
            for found in self._answers(self._config, missing, kept.parts):
                kept.remember(found)
        written = [kept.get(prompt_key(prompt)) for prompt in missing]
        lost = sum(one is None for one in written)
        assert not lost, f"{lost} prompts came back without an answer"
        return [one for one in written if one is not None]


def _by_actors(
    config: KnowledgeConfig, prompts: list[str], parts: Parts
) -> Iterator[dict[str, Written]]:
    """Let a pool of actors, each with a copy of the model, answer and keep block by block."""
    connect()
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), resources.get("CPU", 1.0)
    if config.device == "cuda" and not gpus:
        message = "`knowledge.device` must be a device of the cluster; got 'cuda' without a GPU."
        raise ConfigError(message + " Set it to auto.")
    device = "cuda" if gpus and config.device != "cpu" else "cpu"
    num_blocks = -(-len(prompts) // config.batch_size)
    most = max(1, min(config.max_actors, num_blocks, gpus if device == "cuda" else int(cpus)))
    dataset = ray.data.from_arrow(prompt_blocks(prompts, config.batch_size)).map_batches(
        _Writer,
        fn_constructor_args=(config, device, parts),
        batch_size=config.batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=1
        ),
        num_cpus=1.0 if cpus >= 2 else 0.5,
        num_gpus=1 if device == "cuda" else 0,
    )
    dataset.context.execution_no_progress_timeout_s = _LONGEST_BLOCK_SECONDS
    for batch in stream_blocks(dataset):
        if "fault" in batch.column_names:
            raise ConfigError(batch["fault"][0].as_py())
        rows = batch.to_pylist()
        yield {row.pop("prompt"): Written(**row) for row in rows}


def prompt_blocks(prompts: list[str], size: int) -> list[pa.Table]:
    """Return the prompts in blocks of `size`, those of similar length together to save padding.

    Ray takes a pool whose blocks do not end for stuck: each batch is a block, however many there
    are, so that only one that takes an hour by itself is given up.
    """
    ordered = sorted(prompts, key=len)
    return [pa.table({"prompt": ordered[at : at + size]}) for at in range(0, len(ordered), size)]


class _Writer:
    """An actor: one copy of the model."""

    def __init__(self, config: KnowledgeConfig, device: str, parts: Parts) -> None:
        self._config = config
        self._device = device
        self._parts = parts

    @cached_property
    def _model(self) -> ModelWriter:
        return ModelWriter(self._config, self._device)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return ``prompt`` and what was written, or a ``fault``: as a value it keeps its type."""
        prompts = block["prompt"].to_pylist()
        try:
            texts = dict(zip(prompts, self._model.write(prompts), strict=True))
        except ConfigError as error:
            return pa.table({"fault": [str(error)]})
        self._parts.add(texts)
        rows = [{"prompt": prompt, **vars(written)} for prompt, written in texts.items()]
        return pa.Table.from_pylist(rows)
