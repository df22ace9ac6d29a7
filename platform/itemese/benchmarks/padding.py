"""What padding costs: the same model trained on bucketed batches and on histories padded to 50.

Shapes: B batch, T history length.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from torch import Tensor, nn

from itemese.benchmarks.rows import figure
from itemese.core.randomness import numpy_generator
from itemese.core.schema import Catalog, Histories, Request
from itemese.core.vectors import SemanticIds
from itemese.methods.base import Batch, Inputs, Method, MethodConfig, Need
from itemese.methods.lookup import method_of

PADDED_BAR = 4.0
"""Users a second over those of padding to 50, at least."""

LONGEST = 50
BATCH_SIZE = 64
NUM_ITEMS = 12_101


def benchmark_padding(
    config: MethodConfig, *, batches: int = 12, rounds: int = 3, seed: int = 0
) -> list[dict[str, Any]]:
    """Measure training users a second with bucketed batches and with histories padded to 50.

    Both sides take whole training steps, one CPU thread, on histories of the lengths of Amazon
    Beauty where ``$ITEMESE_DATA`` holds it, else of a simulated law with the same mean; items are
    random, which costs the same. They alternate, and each side's median round counts.

    Args:
        config: A method over semantic IDs whose batches hold ``item_index``.
        batches: Steps of a round.
        rounds: Rounds of each side.
        seed: Of items, batches and weights.

    Returns:
        Rows ``{"name", "value", "unit", "bar", "holds"}``.
    """
    lengths, source = _lengths(seed)
    draw = numpy_generator(seed, "training/padding")
    # Bucketed batches are cut from all lengths in order; a sample of them stands for the epoch.
    cut = np.array_split(np.sort(lengths), -(-len(lengths) // BATCH_SIZE))
    bucketed = [cut[n] for n in np.linspace(0, len(cut) - 1, batches).round().astype(int)]
    mixed = [draw.choice(lengths, BATCH_SIZE) for _ in range(batches)]
    method = method_of(config)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    speeds: dict[str, list[float]] = {"bucketed": [], "padded_to_50": []}
    try:
        torch.manual_seed(seed)
        module = method.build(_inputs(seed)).train()
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
        sides = {
            "bucketed": [_batch(method, sizes, draw) for sizes in bucketed],
            "padded_to_50": [_pad(_batch(method, sizes, draw)) for sizes in mixed],
        }
        _train(method, module, optimizer, sides["bucketed"][:2])  # what runs first runs slower
        for _ in range(rounds):
            for name, side in sides.items():
                users = sum(len(batch["item_index"]) for batch in side)
                speeds[name].append(users / _train(method, module, optimizer, side))
    finally:
        torch.set_num_threads(threads)
    ratio = median(a / b for a, b in zip(*speeds.values(), strict=True))
    rows = [
        figure(f"training/{name}/{source}", median(found), "users/s")
        for name, found in speeds.items()
    ]
    name = f"training/bucketed_over_padded/{source}"
    return [*rows, figure(name, ratio, "ratio", least=PADDED_BAR)]


def _lengths(seed: int) -> tuple[np.ndarray, str]:
    """Return training lengths of all users, at most 50, and where they come from."""
    file = Path(os.environ.get("ITEMESE_DATA", "data"), "amazon_beauty", "interactions.parquet")
    if file.is_file():
        counts = pl.scan_parquet(file).group_by("user_id").len().collect()["len"].to_numpy()
        # Two events of each user are held out; a history of one has nothing to predict.
        return np.clip(counts - 2, 2, LONGEST), "beauty_lengths"
    draw = numpy_generator(seed, "training/padding/lengths")
    return np.clip(3 + draw.geometric(0.25, 20_000), 3, LONGEST), "simulated_lengths"


def _inputs(seed: int) -> Inputs:
    """Return a catalogue of Beauty's size with random semantic IDs, 3 x 256 and a suffix."""
    codes = numpy_generator(seed, "training/padding/codes").integers(256, size=(NUM_ITEMS, 3))
    names = [f"item-{n}" for n in range(NUM_ITEMS)]
    suffix = np.arange(NUM_ITEMS)[:, None] % 16
    rows = np.concatenate([codes, suffix], axis=1).astype(np.int32)
    rows[:, :2] = np.stack([np.arange(NUM_ITEMS) % 256, np.arange(NUM_ITEMS) // 256], axis=1)
    table = pa.table({"item_id": names, "title": names})
    catalog = Catalog(names, names, np.ones(NUM_ITEMS, np.int64), table)

    def nothing() -> Iterator[Histories]:
        yield from ()

    return Inputs(
        catalog, nothing, artifacts={Need.SEMANTIC_IDS: SemanticIds(rows, (256, 256, 256, 16))}
    )


def _batch(method: Method, lengths: np.ndarray, draw: np.random.Generator) -> Batch:
    """Return a batch of random histories of these lengths."""
    return method.collate(
        [Request(draw.integers(NUM_ITEMS, size=n).astype(np.int32), np.arange(n)) for n in lengths]
    )


def _pad(batch: Batch) -> Batch:
    """Pad every history to 50 items."""
    items: Tensor = batch["item_index"]
    missing = LONGEST - items.shape[1]
    return {**batch, "item_index": nn.functional.pad(items, (0, missing), value=-1)}


def _train(
    method: Method, module: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Batch]
) -> float:
    """Take one step a batch; return the seconds."""
    started = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.stack([term.value for term in method.losses(module, batch).values()]).sum()
        torch.autograd.backward(loss)
        optimizer.step()
    return time.perf_counter() - started
