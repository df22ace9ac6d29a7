"""Explanations by hand."""

import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from itemese.core.schema import Catalog
from itemese.core.vectors import SemanticIds
from itemese.serving.engine import Recommender
from itemese.serving.explanation import NUM_SIBLINGS, Explainer
from itemese.serving.query import Query, Related

CODES = [[0, 1, 0], [0, 1, 1], [0, 2, 0], [1, 1, 0], [1, 0, 0]]


def test_codes_siblings_and_the_nearest_of_the_history() -> None:
    names = list("abcde")
    counts = pa.array(np.ones(5), pa.int64())
    catalog = Catalog.from_table(
        pa.table({"item_id": names, "title": [n.upper() for n in names], "train_count": counts})
    )
    explainer = Explainer(catalog, SemanticIds(np.array(CODES, np.int32), (2, 3, 2)))
    found = explainer.explain([0], [2, 1, 3])[0]
    assert found.codes == (0, 1, 0)
    assert found.siblings == (Related("b", "B", 2), Related("c", "C", 1))
    assert found.nearest == Related("b", "B", 2)
    assert explainer.explain([0], [3, 4])[0].nearest is None
    of_e, of_a = explainer.explain([4, 0], [2])
    assert of_e.siblings == (Related("d", "D", 1),)
    assert of_e.nearest is None
    assert of_a.nearest == Related("c", "C", 1)


def straightforward(codes: np.ndarray, item: int, history: list[int]) -> tuple[list, int | None]:
    """Return how many codes the closest siblings share, and the closest event."""

    def shared(other: int) -> int:
        return int(np.cumprod(codes[other] == codes[item]).sum())

    best = sorted((shared(o) for o in range(len(codes)) if o != item), reverse=True)
    nearest = max(history[::-1], key=shared, default=None)
    return [n for n in best[:NUM_SIBLINGS] if n], (
        nearest if nearest is not None and shared(nearest) else None
    )


def drawn(num_items: int, sizes: tuple[int, ...]) -> tuple[Explainer, np.ndarray]:
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, num_items) for size in sizes], axis=1).astype(np.int32)
    names = [f"i{n}" for n in range(num_items)]
    counts = pa.array(np.ones(num_items), pa.int64())
    table = pa.table({"item_id": names, "title": names, "train_count": counts})
    return Explainer(Catalog.from_table(table), SemanticIds(codes, sizes)), codes


def test_it_finds_what_comparing_all_with_all_finds() -> None:
    explainer, codes = drawn(60, (6, 5, 4))
    rng = np.random.default_rng(1)
    for length in (0, 1, 3, 12):
        history = rng.integers(0, 60, length).tolist()
        for item, found in enumerate(explainer.explain(list(range(60)), history)):
            siblings, nearest = straightforward(codes, item, history)
            assert [sibling.shared_codes for sibling in found.siblings] == siblings
            assert (found.nearest and found.nearest.item_id) == (
                None if nearest is None else f"i{nearest}"
            )


def test_a_long_history_and_many_items_take_no_time() -> None:
    explainer, _ = drawn(12_000, (256, 256, 256, 256))
    history = np.random.default_rng(2).integers(0, 12_000, 10_000).tolist()
    began = time.process_time()
    assert len(explainer.explain(list(range(1000)), history)) == 1000
    assert time.process_time() - began < 0.5


def test_only_what_the_model_reads_explains(bundle_of: Callable[..., str]) -> None:
    engine = Recommender.load(bundle_of())  # which reads three events
    ids = SemanticIds(np.array(CODES, np.int32), (2, 3, 2))
    engine._naming.explainer = Explainer(engine.catalog, ids)
    asked = [Query(("b", *more), score_items=("a",), explain=True) for more in ("dd", "ddd")]
    nearest = [answer.items[0].explanation.nearest for answer in engine.answers(asked)]
    assert [found and found.item_id for found in nearest] == ["b", None]
