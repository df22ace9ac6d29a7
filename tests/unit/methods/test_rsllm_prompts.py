"""What RSLLM's prompts hold: the same in training, in choosing and in the towers."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from itemese.core.errors import ConfigError
from loss_values import loss_values


def test_training_reads_as_much_history_as_evaluation(small: Any) -> None:
    method, module = small.make(prompt_items=6, num_candidates=4, copy_share=0.2, copy_candidates=3)
    batch = method.collate(small.rows(3, length=9))
    items = batch["item_index"]
    lengths = []
    for stage in method.stages()[1:]:
        method.on_stage_start(module, stage)
        module.eval()
        trained = module.write_training(items, batch["draw"])
        known = items[:, :8]
        opened = module.open_prompts(known, batch["draw"], torch.tensor([[1, 2, 3, 4]] * 3))
        for row in range(3):
            end = int(trained.history_end[row])
            assert torch.equal(trained.tokens[row, :end], opened[row, :end])
        lengths.append(int(trained.history_end[0]))
    method.on_stage_start(module, method.stages()[0])
    copied = module.write_training(items, batch["draw"])
    assert int(copied.history_end[0]) < lengths[0]  # three lines of text less six


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_the_shortest_prompts_that_are_accepted_fit_whatever_is_asked(
    small: Any, architecture: str
) -> None:
    sizes = {**small.settings["backbone"], "architecture": architecture}
    changes = {"backbone": sizes, "prompt_items": 20, "num_candidates": 4}
    with pytest.raises(ConfigError, match="must be at least") as refusal:
        small.make(**changes, max_tokens=16)
    least = int(str(refusal.value).partition("at least ")[2].split()[0])
    method, module = small.make(**changes, max_tokens=least)
    batch = method.collate(small.rows(4, length=24))
    module.train()
    assert all(term.isfinite() for term in loss_values(method, module, batch).values())
    module.eval()
    offered = torch.tensor([[20, 21, 22, 23]] * 4)
    with torch.no_grad():
        chosen = method.choose(module, batch, offered)
        states = module.history_states(batch["item_index"], batch["draw"])
    assert set(chosen) == set(method.choice_modes)
    assert states.isfinite().all()


def test_the_unknown_user_has_the_first_draw_and_a_named_one_always_the_same(small: Any) -> None:
    method, _ = small.make()
    named = small.rows(2)
    unknown = [replace(row, user_id="") for row in named]
    assert method.collate(unknown)["draw"].tolist() == [0, 0]
    draw = method.collate(named)["draw"]
    assert (draw > 0).all()
    assert draw[0] != draw[1]
    assert torch.equal(method.collate(named[::-1])["draw"], draw.flip(0))
