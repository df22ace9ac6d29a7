"""Codes that say the same, that say half of it, and that have nothing to do with one another."""

import numpy as np
import pytest

from itemese.codebooks.health.dependence import dependence


def test_bits_are_what_one_code_says_of_the_other() -> None:
    first = np.arange(4096) % 16
    same, half, other = 15 - first, first // 4, np.arange(4096) // 256
    found = {
        tuple(pair["positions"]): pair
        for pair in dependence(np.stack([first, same, half, other], axis=1).astype(np.int32))
    }
    assert len(found) == 6
    assert found[0, 1]["bits"] == pytest.approx(4)
    assert found[0, 2]["bits"] == pytest.approx(2)
    assert found[0, 3]["bits"] == pytest.approx(0, abs=1e-9)
    assert all(pair["bits_by_chance"] < 0.1 for pair in found.values())


def test_few_items_on_many_codes_are_no_dependence() -> None:
    rng = np.random.default_rng(0)
    pair = dependence(rng.integers(0, 64, size=(500, 2)))[0]
    assert pair["bits"] > 2, "the plain count is fooled"
    assert pair["bits"] == pytest.approx(pair["bits_by_chance"], abs=0.15)
    assert dependence(rng.integers(0, 4, size=(50, 1))) == []
