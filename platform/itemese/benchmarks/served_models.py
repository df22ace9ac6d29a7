"""Untrained models of the size of real ones, as bundles: they cost what trained ones do.

Shapes: I items.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.core.bundle import write_bundle
from itemese.core.randomness import numpy_generator
from itemese.core.schema import Catalog
from itemese.core.vectors import SemanticIds
from itemese.methods.base import Inputs, Need
from itemese.methods.lookup import method_of, parse_method_config
from itemese.serving.config import ServingConfig
from itemese.serving.engine import Recommender

NUM_ITEMS = 12_101
HISTORY = 50
LANGUAGE_MODEL = {
    "name": "semantic_id_lm",
    "max_history": 2 * HISTORY,
    "beam_width": 20,
    "backbone": {"dim": 128, "num_layers": 4, "num_heads": 4, "hidden_dim": 512},
}
BIG_MODEL = {
    "name": "semantic_id_lm",
    "max_history": HISTORY,
    "beam_width": 10,
    "backbone": {"dim": 320, "num_layers": 8, "num_heads": 5, "hidden_dim": 864},
}
SASREC = {"name": "sasrec", "max_history": HISTORY, "dim": 64}


def write_untrained(storage: str, settings: Mapping[str, Any], *, seed: int) -> str:
    """Write a bundle of a method as it begins, over random codes; return its place."""
    config = parse_method_config(dict(settings))
    method = method_of(config)
    names = [f"item {n}" for n in range(NUM_ITEMS)]
    table = pa.table({"item_id": names, "title": names, "train_count": np.ones(NUM_ITEMS, int)})
    catalog = Catalog.from_table(table)
    coded = Need.SEMANTIC_IDS in method.needs
    artifacts: dict[str, Any] = {Need.SEMANTIC_IDS: _random_ids(seed)} if coded else {}
    module = method.build(Inputs(catalog, lambda: iter(()), seed=seed, artifacts=artifacts))
    folder = Folder.at(storage).child(f"serving/{config.name}")
    write_bundle(
        folder,
        experiment={"name": f"untrained_{config.name}", "seed": seed},
        method_config=config.model_dump(mode="json"),
        state=dict(module.state_dict()),
        catalog=catalog,
        artifacts=artifacts,
        metrics={},
        ancestry={},
    )
    return folder.uri


def _random_ids(seed: int) -> SemanticIds:
    """Return three random codes an item, and a fourth that numbers those that share them."""
    draw = numpy_generator(seed, "serving/benchmark/codes")
    codes = draw.integers(0, 256, (NUM_ITEMS, 3))
    _, group = np.unique(codes, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.diff(starts, append=NUM_ITEMS)
    suffix = np.empty(NUM_ITEMS, np.int64)
    suffix[order] = np.arange(NUM_ITEMS) - np.repeat(starts, sizes)
    rows = np.concatenate([codes, suffix[:, None]], axis=1).astype(np.int32)
    return SemanticIds(rows, (256, 256, 256, int(sizes.max())))


def as_in_a_replica(uri: str) -> Recommender:
    """Return the engine that a replica would have, warm."""
    settings = ServingConfig()
    engine = Recommender.load(uri, prompt_cache_bytes=settings.prompt_cache_mb << 20)
    engine.warm_up(settings.max_batch_size)
    return engine
