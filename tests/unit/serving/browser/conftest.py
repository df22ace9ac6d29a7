"""Bundles with semantic IDs behind a real server, and pages that must not fail."""

import numpy as np
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.bundle import write_bundle
from itemese.core.vectors import SemanticIds
from itemese.serving.config import ServeArgs
from itemese.serving.registry import promote, try_out
from itemese.serving.replica import Replica
from playground import opened

CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]], np.int32)


@pytest.fixture
def bundle_with_codes(tmp_path, catalog):
    """Write a bundle with semantic IDs into a folder of that name and return its URI."""

    def make(name, method, state):
        folder = Folder.at(tmp_path / name)
        write_bundle(
            folder,
            experiment={"name": name, "evaluation": {"exclude_seen": True}},
            method_config=method,
            state=state,
            catalog=catalog,
            artifacts={"codebooks": SemanticIds(CODES, (2, 3))},
            metrics={},
            ancestry={},
        )
        return folder.uri

    return make


@pytest.fixture
def registry(tmp_path, bundle_with_codes):
    """A champion that counts up and a canary that counts down, both with semantic IDs."""
    places = [
        bundle_with_codes(name, {"name": "popularity"}, {"count_of": torch.tensor(counts).double()})
        for name, counts in (("up", [1.0, 2, 3, 4, 5]), ("down", [5.0, 4, 3, 2, 1]))
    ]
    registry = Folder.at(tmp_path / "registry")
    promote(registry, places[0])
    try_out(registry, places[1], 0.5)
    return registry.uri


@pytest.fixture
def neighbours(bundle_with_codes):
    """A bundle whose answers rest on the history: a and b lead to d, a little; c leads to e."""
    state = {
        "neighbor": torch.tensor([[3], [3], [4], [0], [0]]),
        "weight": torch.tensor([[0.4], [0.4], [0.6], [0.0], [0.0]]),
        "fallback": torch.tensor([0.003, 0.002, 0.0015, 0.001, 0.0005]),
    }
    return bundle_with_codes("knn", {"name": "item_knn", "decay": 1.0}, state)


@pytest.fixture
def serving(listening):
    """What puts a replica of these settings behind a real server."""
    return lambda **args: listening(Replica(ServeArgs(log_requests=False, **args)))


@pytest.fixture
def page(browser):
    """A page whose requests must all succeed."""
    with opened(browser, may_fail=False) as page:
        yield page


@pytest.fixture
def failing_page(browser):
    """A page whose requests may be refused."""
    with opened(browser, may_fail=True) as page:
        yield page
