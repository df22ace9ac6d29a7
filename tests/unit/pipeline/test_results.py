"""Item vectors of a trained recommender, as the embeddings take them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.core.schema import Catalog
from itemese.methods.base import Inputs
from itemese.methods.lookup import method_of, parse_method_config
from itemese.pipeline import result as results

NUM_ITEMS = 11


@pytest.mark.parametrize("cuda", [False, True])
def test_vectors_are_computed_where_the_gpu_is_and_fetched_in_blocks(
    cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"i{n}" for n in range(NUM_ITEMS)]
    counts = np.ones(NUM_ITEMS, np.int64)
    counts[3] = 0
    catalog = Catalog(ids, ids, counts, pa.table({"item_id": ids}))
    config = parse_method_config({"name": "gru4rec", "dim": 4})
    module = method_of(config).build(Inputs(catalog, lambda: iter(()))).eval()
    places: list[str] = []

    def move(device: torch.device) -> torch.nn.Module:
        places.append(device.type)
        return module

    monkeypatch.setattr(module, "to", move)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(results, "load_module", lambda *_, **__: module)
    monkeypatch.setattr(results, "artifacts_of", lambda _: {})
    monkeypatch.setattr(Catalog, "read", lambda _: catalog)
    monkeypatch.setattr(results, "VECTORS_AT_ONCE", 4)
    experiment: Any = SimpleNamespace(method=config, seed=0)
    nowhere: Any = {name: SimpleNamespace(folder=None) for name in ("training", "sequences")}
    found, parts = results.vectors_of(experiment, nowhere)
    assert places == ["cuda" if cuda else "cpu"]
    wanted = method_of(config).item_vectors(module).detach().clone()
    wanted[3] = wanted[torch.arange(NUM_ITEMS) != 3].mean(dim=0)
    np.testing.assert_array_equal(found, wanted.numpy())
    assert (found.dtype, parts) == (np.float32, ())
