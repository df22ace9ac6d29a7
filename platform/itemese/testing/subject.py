"""The method under check: its settings, what it is built from, and what is asked of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Histories, Request, Split
from itemese.core.stages import READERS, outside_stage
from itemese.methods.base import Batch, Inputs, Method, Need
from itemese.methods.lookup import method_class, method_of
from itemese.testing.planted import inputs, parts, walks


@dataclass(frozen=True)
class Subject:
    """A method with small settings.

    Attributes:
        name: As in YAML: a file of ``methods/``, or the dotted path of a module.
        settings: Beside the name; a test wants small sizes.
        artifacts: What the method needs and `planted.inputs` does not have.
        log: What it learns from and is asked about.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    log: Histories = field(default_factory=walks)

    def method(self, dropout: float = 0.0) -> Method:
        """Return the method, whose dropout is this one wherever its settings name it."""
        config = method_class(self.name).Config
        known = {"max_history": 12} if "max_history" not in self.settings else {}
        values = {"name": self.name, **known, **self.settings}
        defaults = config.parse(values).model_dump()
        return method_of(config.parse(_with_dropout(values, defaults, dropout)))

    @property
    def inputs(self) -> Inputs:
        """What the method is built from; its parts, where it has some, are untrained."""
        given = dict(self.artifacts)
        if Need.PARTS in method_class(self.name).needs:
            given.setdefault(Need.PARTS, parts(self.log, self.settings["parts"]))
        return inputs(self.log, given)

    def make(self, dropout: float = 0.0) -> tuple[Method, nn.Module]:
        """Return the method and an untrained module."""
        method = self.method(dropout)
        torch.manual_seed(0)
        return method, method.build(self.inputs)

    def bundled(self) -> Inputs:
        """Return what a bundle gives a method that is restored: no training events, no texts."""
        given, dropped = self.inputs, self.method().built_from
        kept = {
            n: value for n, value in given.artifacts.items() if _answers(n) and n not in dropped
        }
        return Inputs(given.catalog, lambda: iter(()), artifacts=kept)

    def asked(self, count: int = 6) -> list[Request]:
        """Return the histories before the first test targets."""
        found = self.log.targets(Split.TEST)
        pairs = zip(found.row[:count], found.place[:count], strict=True)
        return [self.log.request(int(row), int(place)) for row, place in pairs]

    def trained_on(self, count: int) -> list[Request]:
        """Return training requests of the first users with two events or more."""
        train = self.log.only(Split.TRAIN)
        users = np.flatnonzero(train.lengths() >= 2)[:count]
        return [train.request(int(user)) for user in users]


def _with_dropout(
    values: Mapping[str, Any], defaults: Mapping[str, Any], dropout: float
) -> dict[str, Any]:
    """Return the settings with this dropout in every field whose name ends so, at any depth."""
    found = dict(values)
    for name, default in defaults.items():
        if name.endswith("dropout") and isinstance(default, float):
            found[name] = dropout
        elif isinstance(default, dict):
            inside = _with_dropout(values.get(name) or {}, default, dropout)
            if inside:
                found[name] = inside
    return found


Check = Callable[[Subject], None]
"""Raises AssertionError where the method breaks its contract."""


def _answers(need: str) -> bool:
    """Return whether a bundle holds what a method needs."""
    stage = outside_stage(need) if "." in need else None
    return stage.reader.answers if stage else need in READERS


def rank(
    method: Method,
    module: nn.Module,
    rows: Sequence[Request],
    k: int,
    candidates: Candidates | None = None,
) -> Ranking:
    """Return `Method.predict` of these rows."""
    with torch.no_grad():
        batch = method.collate(rows)
        ranking = method.predict(module.eval(), batch, k, candidates or Candidates())
    assert isinstance(ranking, Ranking)
    return ranking


def losses(method: Method, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the value of each loss term."""
    return {name: term.value for name, term in method.losses(module, batch).items()}


def seen(rows: Sequence[Request]) -> Tensor:
    """Return the items of each history, ``[B, T]``, padded with -1."""
    longest = max(len(row.history) for row in rows)
    padded = [[*row.history.tolist(), *[-1] * (longest - len(row.history))] for row in rows]
    return torch.tensor(padded)
