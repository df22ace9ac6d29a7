"""Inputs of methods from the few artifacts that a test names."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from itemese.core.schema import Catalog, Histories
from itemese.core.stages import READERS
from itemese.methods.base import Inputs, Need

NEEDS = {
    "semantic_ids": Need.SEMANTIC_IDS,
    "embeddings": Need.EMBEDDINGS,
    "recommender": Need.RECOMMENDER,
}


def given(
    catalog: Catalog, train: Callable[[], Iterator[Histories]], seed: int = 0, **artifacts: Any
) -> Inputs:
    """Return inputs with these artifacts; None is no artifact."""
    return changed(Inputs(catalog, train, seed=seed), **artifacts)


def changed(inputs: Inputs, **changes: Any) -> Inputs:
    """Return the inputs with other artifacts or fields; None takes an artifact away."""
    found = {**inputs.artifacts, **{NEEDS[n]: v for n, v in changes.items() if n in NEEDS}}
    fields = {n: v for n, v in changes.items() if n not in NEEDS}
    kept = {need: value for need, value in found.items() if value is not None}
    return replace(inputs, artifacts=kept, **fields)


def answered_with(inputs: Inputs) -> dict[str, Any]:
    """Return the artifacts that a bundle of a method with these inputs holds."""
    return {need: value for need, value in inputs.artifacts.items() if need in READERS}
