"""Smoothing of code targets by hand."""

import torch

from itemese.losses.code_tokens import next_code


def test_smoothing_mixes_in_the_mean_over_the_level() -> None:
    logits = [torch.randn(3, 4), torch.randn(3, 6)]
    codes = torch.tensor([[3, 0], [1, 5], [0, 2]])
    even = torch.stack([-level.log_softmax(1).mean(1) for level in logits]).mean()
    expected = 0.9 * next_code(logits, codes) + 0.1 * even
    torch.testing.assert_close(next_code(logits, codes, label_smoothing=0.1), expected)
