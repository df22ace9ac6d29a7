"""What RSLLM's prompts hold: the same in training, in choosing and in the towers."""

from typing import Any

import torch


def test_training_reads_as_much_history_as_evaluation(small: Any) -> None:
    method, module = small.make(prompt_items=6, num_candidates=4, copy_share=0.2, copy_candidates=3)
    batch = method.collate(small.rows(3, length=9))
    items = batch["item_index"]
    lengths = []
    for stage in method.stages()[1:]:
        method.begin(module, stage)
        module.eval()
        trained = module.write_training(items, batch["draw"])
        known = items[:, :8]
        opened = module.open_prompts(known, batch["draw"], torch.tensor([[1, 2, 3, 4]] * 3))
        for row in range(3):
            end = int(trained.history_end[row])
            assert torch.equal(trained.tokens[row, :end], opened[row, :end])
        lengths.append(int(trained.history_end[0]))
    method.begin(module, method.stages()[0])
    copied = module.write_training(items, batch["draw"])
    assert int(copied.history_end[0]) < lengths[0]  # three lines of text less six
