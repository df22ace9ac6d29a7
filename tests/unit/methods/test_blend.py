"""Blends: the weighted mean of what the parts hold, item by item."""

import numpy as np
import pytest
import torch

from itemese.core.errors import ConfigError
from itemese.core.schema import Request
from itemese.testing.subject import Subject, rank

PARTS = {
    "graph": {"name": "transition_graph"},
    "items": {"name": "sasrec", "dim": 16, "max_history": 3, "dropout": 0.0},
    "language": {
        "name": "semantic_id_lm",
        "max_history": 6,
        "dropout": 0.0,
        "backbone": {"dim": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 64},
    },
}


def made(weights: dict[str, float], **settings: object):
    subject = Subject("blend", {"parts": PARTS, "weights": weights, **settings})
    method, module = subject.make()
    return subject, method, module.eval()


def alone(method, module, name: str, requests: list[Request]) -> torch.Tensor:
    """Return what a part holds for every item, asked by itself, ``[B, I]``."""
    part = method.methods[name]
    cut = [request.newest(part.config.max_history) for request in requests]
    batch = part.collate(cut)
    with torch.no_grad():
        found = part.probabilities(module.part(name), batch)
        if found is None:
            items = torch.arange(30).expand(len(requests), -1)
            found = part.score(module.part(name), batch, items).values.exp()
    return found


def test_an_item_has_the_weighted_mean_of_its_probabilities() -> None:
    weights = {"graph": 1.0, "items": 2.0, "language": 1.0}
    subject, method, module = made(weights)
    requests = subject.asked(5)
    parts = {name: alone(method, module, name, requests) for name in PARTS}
    expected = sum(weights[name] * part for name, part in parts.items()) / 4.0
    with torch.no_grad():
        found = method.score_catalogue(module, method.collate(requests)).exp()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    ranking = rank(method, module, requests, 30)
    best = torch.sort(expected, dim=1, descending=True).values
    torch.testing.assert_close(ranking.score.exp(), best, atol=1e-6, rtol=1e-4)


def test_a_search_gives_probabilities_to_its_best_items_and_to_those_of_the_others() -> None:
    subject, method, module = made({"graph": 1.0, "items": 1.0, "language": 1.0}, num_candidates=4)
    requests = subject.asked(5)
    batch = method.collate(requests)
    with torch.no_grad():
        mixed = method.score_catalogue(module, batch).exp() * 3
        dense = sum(alone(method, module, name, requests) for name in ("graph", "items"))
    language = alone(method, module, "language", requests)
    known = torch.zeros_like(language, dtype=torch.bool)
    known.scatter_(1, dense.topk(4).indices, value=True)
    known.scatter_(1, language.topk(4).indices, value=True)
    torch.testing.assert_close(mixed, dense + language * known, atol=1e-5, rtol=1e-3)
    assert 4 <= int(known.sum(dim=1).min()) < 30


def test_a_graph_without_an_edge_abstains() -> None:
    _, method, module = made({"graph": 3.0, "items": 1.0, "language": 0.0})
    module.part("graph").weight.zero_()
    assert module.part("graph").fallback.any(), "popularity is no vote"
    request = Request(np.array([1, 2], np.int32), np.array([1, 2]))
    with torch.no_grad():
        found = method.score_catalogue(module, method.collate([request])).exp()
    torch.testing.assert_close(found, alone(method, module, "items", [request]))


@pytest.mark.parametrize("weights", [{"graph": 1.0}, {"graph": 0.0, "items": 0.0, "language": 0.0}])
def test_weights_that_do_not_fit_the_parts_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"exactly its parts, \['graph', 'items', 'language'\]"):
        made(weights)
