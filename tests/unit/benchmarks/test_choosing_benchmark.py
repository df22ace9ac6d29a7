"""Both ways of judging choose alike, so that their ratio is one of the same work."""

import pyarrow as pa
import pytest
import torch

from itemese.benchmarks.choosing import benchmark_choosing
from itemese.core.schema import Catalog
from itemese.methods.base import Inputs
from itemese.methods.lookup import method_of, parse_method_config
from itemese.methods.rsllm.network import RsllmNetwork


def test_both_ways_choose_alike() -> None:
    ids = [f"i{n}" for n in range(30)]
    titles = [f"Film {n} of {n % 3}" for n in range(30)]
    table = pa.table({"item_id": ids, "title": titles, "train_count": pa.array([1] * 30)})
    method = method_of(
        parse_method_config(
            {
                "name": "rsllm",
                "item_form": "text",
                "num_candidates": 5,
                "max_title_tokens": 8,
                "backbone": {"dim": 32, "num_layers": 2, "num_heads": 2, "vocabulary": 300},
            }
        )
    )
    torch.manual_seed(0)
    module = method.build(Inputs(Catalog.from_table(table), lambda: iter(()))).eval()
    assert isinstance(module, RsllmNetwork)
    for parameter in module.parameters():
        parameter.data *= 3  # fresh weights hardly prefer anything
    offered = torch.stack([torch.randperm(30)[:5] for _ in range(6)])
    history = torch.randint(0, 30, (6, 9))
    history[0, 4:] = -1
    prompts = module.open_prompts(history, torch.arange(6), offered)
    rows = benchmark_choosing(module.network, prompts, module.answer_tokens(offered), rounds=1)
    found = {row["name"]: row["value"] for row in rows}
    assert found["prompts/choosing/same_choice"] == 100
    ratio = found["prompts/choosing/shared"] / found["prompts/choosing/apart"]
    assert found["prompts/choosing/speed_over_apart"] == pytest.approx(ratio, rel=1e-3)
