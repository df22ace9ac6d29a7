"""Blend: the mean of what several trained recipes hold for the next item, with fixed weights.

Source: a linear opinion pool (M. Stone, "The Opinion Pool", Ann. Math. Statist. 32, 1961).
Code: none.
Follows: P(item) = sum_p w_p P_p(item) / sum_p w_p.
Differs: a part that knows nothing of a history (a graph without edges from it) abstains, and the
    weights of the others sum to 1. Weights are settings; a study chooses them on validation
    (`itemese search`). A part that searches by beams gives exact probabilities to its
    `num_candidates` best items and to as many of what the other parts hold best; its others are 0.
Shapes: B batch, T history length, I items, M candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, SerializeAsAny, field_validator, model_validator
from torch import Tensor, nn

from itemese.core.parts import Part, Parts
from itemese.core.ranking import Candidates, Scores
from itemese.core.schema import Request
from itemese.methods.base import Batch, Inputs, Method, MethodConfig, Need, Stage
from itemese.methods.families import CatalogueMethod
from itemese.methods.lookup import method_of, parse_method_config

TINY = torch.finfo(torch.float32).tiny


class BlendConfig(MethodConfig):
    """Settings.

    Attributes:
        parts: The ``method`` sections of the recipe's ``parts``, taken from there.
        weights: Of each part, relative; empty weighs all alike.
        num_candidates: Items that a part which searches by beams gives a probability: its own best
            ones, and as many of the other parts'.
        max_history: Each part reads as many of these newest events as its own settings say.
    """

    name: Literal["blend"] = "blend"
    parts: dict[str, SerializeAsAny[MethodConfig]] = Field(default_factory=dict)
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    num_candidates: int = Field(default=100, ge=1)
    max_history: int = Field(default=100_000, ge=1, le=100_000)

    @field_validator("parts", mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        return {name: parse_method_config(part) for name, part in dict(values).items()}

    @model_validator(mode="after")
    def _weighed(self) -> Self:
        if self.weights and (self.weights.keys() != self.parts.keys() or not self.total):
            message = f"`weights` of exactly its parts, {sorted(self.parts)}, one of them above 0"
            raise ValueError(message)
        return self

    @property
    def total(self) -> float:
        """Sum of the weights."""
        return sum(self.weights.values())


class BlendModule(nn.Module):
    """The modules of the parts."""

    def __init__(self, parts: Mapping[str, nn.Module], num_items: int) -> None:
        super().__init__()
        self.parts, self.num_items = nn.ModuleDict(), num_items
        for name, part in parts.items():
            self.parts[f"part_{name}"] = part  # `items` alone would be a name of the dictionary

    def part(self, name: str) -> nn.Module:
        """Return a part's module."""
        return self.parts[f"part_{name}"]


class Blend(CatalogueMethod):
    """See the module docstring."""

    Config = BlendConfig
    config: BlendConfig
    needs: ClassVar[frozenset[str]] = frozenset({Need.PARTS})
    gives_probabilities: ClassVar[bool] = True

    @cached_property
    def methods(self) -> dict[str, Method]:
        """The methods of the parts."""
        return {name: method_of(config) for name, config in self.config.parts.items()}

    def file_digests(self) -> dict[str, str]:
        """Return the hashes of all parts' files."""
        return {
            f"{name}/{file}": digest
            for name, method in self.methods.items()
            for file, digest in method.file_digests().items()
        }

    def build(self, inputs: Inputs) -> nn.Module:
        """Put the trained parts together."""
        states = {name: part.state for name, part in self._parts(inputs).items()}
        return self._assemble(inputs, states)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild every part from its share of the tensors."""
        states: dict[str, dict[str, Tensor]] = {name: {} for name in self.methods}
        for key, value in state.items():
            _, name, inside = key.split(".", maxsplit=2)
            states[name.removeprefix("part_")][inside] = value
        return self._assemble(inputs, states)

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return the batch of every part, ``<part>/<tensor>``."""
        return {
            f"{name}/{key}": tensor
            for name, method in self.methods.items()
            for key, tensor in method.collate(
                [request.newest(method.config.max_history) for request in requests]
            ).items()
        }

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the log-probability of every item, ``[B, I]``."""
        assert isinstance(module, BlendModule)
        batches = {name: _own(batch, name) for name in self.methods}
        found: dict[str, Tensor | None] = {
            name: method.probabilities(module.part(name), batches[name])
            for name, method in self.methods.items()
        }
        known = {name: one for name, one in found.items() if one is not None}
        most = min(self.config.num_candidates, module.num_items)
        best = self._mean(known).topk(most).indices if known else None
        for name in sorted(found.keys() - known.keys()):
            known[name] = self._searched(name, module, batches[name], best)
        return self._mean(known).clamp(min=TINY).log()

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Take the given items from the catalogue's scores."""
        return replace(super().score(module, batch, item_index), kind="log_prob")

    def probabilities(self, module: nn.Module, batch: Batch) -> Tensor | None:
        """Return the mixture."""
        return self.score_catalogue(module, batch).exp()

    def stages(self) -> tuple[Stage, ...]:
        """Nothing is trained."""
        return ()

    def facts(self, module: nn.Module) -> dict[str, Any]:
        """Return the weights."""
        return {"weights": self.config.weights or dict.fromkeys(self.methods, 1.0)}

    def _mean(self, found: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted mean of parts' probabilities ``[B, I]``; zeros where all abstain."""
        total: Tensor | float = 0.0
        weight: Tensor | float = 0.0
        for name, probability in found.items():
            own = self.config.weights.get(name, 0.0 if self.config.weights else 1.0)
            total = total + own * probability
            weight = weight + own * (probability > 0).any(dim=1, keepdim=True)
        assert isinstance(total, Tensor)
        assert isinstance(weight, Tensor)
        return total / weight.clamp(min=TINY)

    def _searched(
        self, name: str, module: BlendModule, batch: Batch, best: Tensor | None
    ) -> Tensor:
        """Return exact probabilities ``[B, I]`` of what a search finds and of ``best [B, M]``."""
        method, part, num_items = self.methods[name], module.part(name), module.num_items
        ranking = method.predict(part, batch, self.config.num_candidates, Candidates())
        scored = [(ranking.item_index, ranking.score)]
        if best is not None:
            scores = method.score(part, batch, best)
            scored.append((best, scores.values))
        probability = scored[0][1].new_zeros(len(ranking.item_index), num_items + 1)
        for items, log_prob in scored:  # what is no item goes to a spare column
            probability.scatter_(1, items.where(items >= 0, num_items), log_prob.exp())
        return probability[:, :num_items]

    @staticmethod
    def _parts(inputs: Inputs) -> Mapping[str, Part]:
        found: Parts = inputs.artifacts[Need.PARTS]
        return found.parts

    def _assemble(self, inputs: Inputs, states: Mapping[str, Mapping[str, Tensor]]) -> BlendModule:
        modules = {}
        for name, part in self._parts(inputs).items():
            own = replace(inputs, artifacts=part.artifacts)
            modules[name] = self.methods[name].restore(own, dict(states[name]))
        return BlendModule(modules, inputs.catalog.num_items)


def _own(batch: Batch, name: str) -> Batch:
    """Return the tensors of one part."""
    start = f"{name}/"
    return {key.removeprefix(start): t for key, t in batch.items() if key.startswith(start)}
