"""Losses against slow, obviously right twins."""

import math

import pytest
import torch

from itemese.losses.code_tokens import next_code
from itemese.losses.next_item import (
    binary_cross_entropy,
    calibrated_cross_entropy,
    full_softmax,
    sampled_softmax,
)


def test_full_softmax_by_hand() -> None:
    states = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    targets = torch.tensor([0, 2])
    expected = 0.0
    for row, target in enumerate(targets.tolist()):
        scores = [float(states[row] @ item) for item in items]
        expected -= scores[target] - math.log(sum(math.exp(s) for s in scores))
    assert full_softmax(states, items, targets).item() == pytest.approx(expected / 2, abs=1e-6)


def test_sampled_softmax_never_counts_the_target_as_its_own_negative() -> None:
    states, items = torch.ones(1, 1), torch.tensor([[3.0]])
    loss = sampled_softmax(states, items, torch.tensor([0]), num_negatives=8)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)  # every draw hits the only item


def test_sampled_softmax_equals_its_twin() -> None:
    torch.manual_seed(1)
    states, items = torch.randn(5, 3), torch.randn(20, 3)
    targets = torch.randint(20, (5,))
    torch.manual_seed(7)
    loss = sampled_softmax(states, items, targets, num_negatives=6)
    torch.manual_seed(7)
    negatives = torch.randint(20, (6,)).tolist()
    expected = 0.0
    for row, target in enumerate(targets.tolist()):
        kept = [target, *(n for n in negatives if n != target)]
        scores = torch.stack([states[row] @ items[n] for n in kept])
        expected -= (scores[0] - scores.logsumexp(0)).item()
    assert loss.item() == pytest.approx(expected / 5, abs=1e-5)


def test_bce_equals_its_twin() -> None:
    torch.manual_seed(2)
    states, items = torch.randn(6, 3), torch.randn(9, 3)
    targets = torch.randint(9, (6,))
    torch.manual_seed(3)
    loss = binary_cross_entropy(states, items, targets)
    torch.manual_seed(3)
    negatives = torch.randint(9, (6,)).tolist()
    expected = 0.0
    for row, (target, negative) in enumerate(zip(targets.tolist(), negatives, strict=True)):
        positive_prob = torch.sigmoid(states[row] @ items[target]).item()
        negative_prob = torch.sigmoid(states[row] @ items[negative]).item()
        expected -= math.log(positive_prob)
        if negative != target:
            expected -= math.log(1 - negative_prob)
    assert loss.item() == pytest.approx(expected / 6, abs=1e-5)


def test_next_code_averages_levels_and_items() -> None:
    torch.manual_seed(4)
    logits = [torch.randn(3, 4), torch.randn(3, 2)]
    codes = torch.tensor([[0, 1], [3, 0], [2, 1]])
    terms = [
        -logits[level][row].log_softmax(0)[codes[row, level]].item()
        for level in range(2)
        for row in range(3)
    ]
    assert next_code(logits, codes).item() == pytest.approx(sum(terms) / 6, abs=1e-6)


def test_gbce_is_bce_with_a_power_of_the_target() -> None:
    torch.manual_seed(0)
    states, vectors, targets = torch.randn(5, 4), torch.randn(11, 4), torch.tensor([0, 3, 3, 9, 10])
    torch.manual_seed(7)
    found = calibrated_cross_entropy(states, vectors, targets, 4, 0.5)
    torch.manual_seed(7)
    drawn = torch.randint(11, (5, 4))
    share = 4 / 10
    power = share * (0.5 * (1 - 1 / share) + 1 / share)
    assert power == pytest.approx(0.5 * share + 0.5), "halfway between the share and 1"
    total = torch.tensor(0.0)
    for row, target in enumerate(targets.tolist()):
        total -= power * torch.log(torch.sigmoid(states[row] @ vectors[target]))
        for other in drawn[row].tolist():
            if other != target:
                total -= torch.log(1 - torch.sigmoid(states[row] @ vectors[other]))
    torch.testing.assert_close(found, total / 5)
