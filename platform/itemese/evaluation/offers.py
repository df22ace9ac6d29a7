"""Choosing one of a few offered items: what is offered, and how choices become figures.

Shapes: N users, C offered items, S resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from itemese.core.artifacts import Folder
from itemese.core.config import Config
from itemese.core.errors import DataError
from itemese.core.randomness import numpy_generator
from itemese.evaluation.rows import Rows
from itemese.evaluation.significance import holm, sign_flip

FILE = "offers.parquet"


class OffersConfig(Config):
    """Who is asked, and what is offered.

    Attributes:
        size: C, the target and ``size - 1`` others.
        max_users: Users asked, drawn by the hash of their ids; None asks all.
    """

    size: int = Field(default=20, ge=2)
    max_users: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class Offers:
    """What each user is offered; drawn once, stored, and the same for every method.

    Attributes:
        user_id: N strings.
        target [N] int64: item_index.
        offered [N, C] int64: the target among the others, in drawn order.
    """

    user_id: list[str]
    target: np.ndarray
    offered: np.ndarray

    @classmethod
    def draw(cls, rows: Rows, *, num_items: int, size: int, seed: int) -> Self:
        """Draw ``size - 1`` items beside each target, uniformly, none from the user's history.

        A user's draw depends on the id, the seed and the history alone: not on other users, on
        shards or on workers.

        Raises:
            DataError: The catalogue is too small for some history.
        """
        offered = np.empty((rows.num_users, size), dtype=np.int64)
        for row, user in enumerate(rows.user_id):
            target = rows.target[row]
            generator = numpy_generator(seed, f"evaluation/offers/{user}")
            others = draw_unseen(generator, np.append(rows.seen[row], target), num_items, size - 1)
            if len(others) < size - 1:
                message = (
                    f"`offers.size` must leave {size - 1} unseen items for each user; got "
                    f"{len(others)} for user {user!r}. Lower it."
                )
                raise DataError(message)
            offered[row] = generator.permutation(np.append(others, target))
        return cls(rows.user_id, rows.target.astype(np.int64), offered)

    def write(self, folder: Folder) -> None:
        """Write ``offers.parquet``."""
        table = pa.table(
            {"user_id": self.user_id, "target": self.target, "offered": list(self.offered)}
        )
        folder.write_table(FILE, table)

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """Read what `write` wrote."""
        table = folder.read_table(FILE)
        offered = np.array(table["offered"].to_pylist(), dtype=np.int64)
        return cls(table["user_id"].to_pylist(), table["target"].to_numpy(), offered)


def draw_unseen(
    generator: np.random.Generator, seen: np.ndarray, num_items: int, size: int
) -> np.ndarray:
    """Draw `size` distinct items uniformly, none of them seen; fewer if fewer are left."""
    taken = np.unique(seen)
    free = num_items - len(taken)
    places = generator.choice(free, min(size, free), replace=False)
    # The p-th item that is not taken lies above as many taken ones as begin before it.
    drawn: np.ndarray = places + np.searchsorted(
        taken - np.arange(len(taken)), places, side="right"
    )
    return drawn


def choice_figures(
    hit: np.ndarray, valid: np.ndarray, *, samples: int = 1000, confidence: float = 0.95
) -> dict[str, dict[str, float]]:
    """Return figures with bootstrap intervals over users.

    Args:
        hit: ``[N] bool``, the target was chosen; only where `valid`.
        valid: ``[N] bool``, exactly one offered item was named.
        samples: S.
        confidence: Coverage of the intervals.

    Returns:
        ``hit@1`` over all users, ``hit@1_of_valid`` over those with a valid answer (0 if there is
        none), and ``valid``, each ``{"value", "low", "high"}``.

    >>> found = choice_figures(np.array([True, False, False]), np.array([True, True, False]))
    >>> [round(figure["value"], 2) for figure in found.values()]
    [0.33, 0.5, 0.67]
    """
    counts = np.array([(hit & valid).sum(), (~hit & valid).sum(), (~valid).sum()], dtype=np.int64)
    total = max(1, int(counts.sum()))
    generator = numpy_generator(0, "evaluation/choices")
    drawn = generator.multinomial(total, counts / total, size=samples)
    drawn = np.concatenate([counts[None], drawn]).astype(np.float64)
    right = drawn[:, 0]
    named = right + drawn[:, 1]
    rows = {"hit@1": right / total, "hit@1_of_valid": right / named.clip(1), "valid": named / total}
    tail = (1 - confidence) / 2
    result = {}
    for name, values in rows.items():
        low, high = np.quantile(values[1:], [tail, 1 - tail])
        result[name] = {"value": float(values[0]), "low": float(low), "high": float(high)}
    return result


def paired_choices(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], *, samples: int = 10_000
) -> list[dict[str, Any]]:
    """Test hits against a baseline's, user by user, with Holm's correction over all pairs.

    Args:
        pairs: Baseline and what is tested against it, both ``[N] bool``, by name.
        samples: S.

    Returns:
        One ``{"name", "difference", "low", "high", "p_value", "p_holm"}`` a method; the difference
        is its hit@1 less the baseline's, with a 95 % bootstrap interval.
    """
    tests: list[dict[str, Any]] = []
    for name, (baseline, hits) in pairs.items():
        size, counts = np.unique(hits.astype(int) - baseline.astype(int), return_counts=True)
        total = counts.sum()
        generator = numpy_generator(0, f"evaluation/choices/{name}")
        drawn = generator.multinomial(total, counts / total, size=samples) @ size / total
        low, high = np.quantile(drawn, [0.025, 0.975])
        p_value = sign_flip(size.astype(float), counts, samples=samples, generator=generator)
        gain = float(counts @ size / total)
        tests.append(
            {"name": name, "difference": gain, "low": low, "high": high, "p_value": p_value}
        )
    for test, adjusted in zip(tests, holm([t["p_value"] for t in tests]), strict=True):
        test["p_holm"] = adjusted
    return tests
