"""Every method of the package passes the checks that authors elsewhere run too."""

from pathlib import Path

import pytest

from itemese.core.config import read_yaml
from itemese.methods.lookup import method_class, method_names
from itemese.testing import method_checks
from itemese.testing.subject import Subject
from itemese.testing.training import recall

SMALL = read_yaml(Path(__file__).with_name("small_methods.yaml"))
NAMES = method_names()
CHECKS = {name: method_checks(name, SMALL.get(name)) for name in NAMES}

NEWEST = {"targets": "last", "positions": "from_query", "norm": "post"}

OPTIONS = {
    "sasrec": {"item_features": True, **NEWEST},
    "parallel_codes": {"residual_dim": 4, "copying": {}, **NEWEST, "filter": {"cutoff": 3}},
    "bsarec": {"item_features": True, "copying": {"similar": {"num_neighbors": 4}}},
    "transition_graph": {"similar": {"num_neighbors": 4}},
    "semantic_id_lm": {"targets": "last", "copying": {"num_candidates": 10, "similar": {}}},
    "tiger": {"copying": {"num_candidates": 10}, "code_normalisation": "level"},
}
"""Settings off the defaults that change what a module learns from."""

SLOW = {"training_finds_who_clicks_on_what-unlabelled", "trained_method_beats_popularity"}
"""Long checks, of which the labelled clicks and the golden figures find the most."""

CHECKS |= {
    f"{name} with options": method_checks(name, {**SMALL.get(name, {}), **options})
    for name, options in OPTIONS.items()
}
AUTOGRAPH = {
    "mind, drawn items": {"backbone": "mind", "history": "sampled", "residual": True},
    "dssm, frozen, semantic": {"backbone": "dssm", "graph": "frozen", "paths": "semantic"},
    "gru4rec, interaction": {"backbone": "gru4rec", "paths": "interaction", "num_layers": 1},
    "features": {"graph": "features"},
    "none": {"graph": "none", "targets": "last"},
}
CHECKS |= {
    f"autograph with {how}": method_checks("autograph", {**SMALL["autograph"], **options})
    for how, options in AUTOGRAPH.items()
}
for how in ("mind, drawn items", "dssm, frozen, semantic"):  # the planted signal is an order
    del CHECKS[f"autograph with {how}"]["trained_method_beats_popularity"]
OLDER = {
    "search": ("sasrec", {"window": 4, "size": 2}),
    "summaries": ("sasrec", {"window": 4, "size": 2, "reader": "summaries"}),
    "codes": ("parallel_codes", {"window": 4, "size": 2, "by": "codes"}),
}
CHECKS |= {
    f"{name} with older events by {how}": method_checks(name, {**SMALL[name], "older": older})
    for how, (name, older) in OLDER.items()
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{what}", marks=[pytest.mark.slow] if what in SLOW else [])
        for name, checks in CHECKS.items()
        for what, check in checks.items()
    ],
)
def test_a_method_keeps_its_contract(check) -> None:
    check()


def test_methods_are_found() -> None:
    expected = {"popularity", "recent_popularity", "item_knn", "transition_graph", "sasrec"}
    assert expected | {"semantic_id_lm", "gru4rec", "caser"} <= set(NAMES)
    assert {n for n in NAMES if method_class(n).encodes_histories} >= {"sasrec", "gru4rec", "caser"}
    clicks = {name for name in NAMES if any("labelled" in what for what in CHECKS[name])}
    assert {"din", "popularity", "store"} <= clicks


@pytest.mark.parametrize("name", ["item_knn", "transition_graph"])
def test_graphs_beat_popularity_on_a_planted_signal(name: str) -> None:
    graph, popularity = Subject(name, SMALL.get(name, {})), Subject("popularity")
    assert recall(graph, *graph.make()) > 2 * recall(popularity, *popularity.make())
