"""The engine: what it answers, what it ignores, what it refuses."""

import numpy as np
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, ConfigError
from itemese.layers.histories import pad_histories
from itemese.methods import base, lookup
from itemese.methods.families import CatalogueMethod
from itemese.serving.engine import Recommender
from itemese.serving.query import Query, QueryError


def ids(recommendations):
    return [r.item_id for r in recommendations]


@pytest.fixture
def engine(bundle_of):
    return Recommender.load(bundle_of())


class Spy(CatalogueMethod):
    """Scores item i by how often it stands in the history; keeps every batch it saw."""

    batches: list = []  # noqa: RUF012

    def build(self, inputs):
        module = torch.nn.Module()
        module.register_buffer("size", torch.tensor(inputs.catalog.num_items))
        return module

    def collate(self, examples):
        Spy.batches.append([(e.history.tolist(), e.timestamp.tolist()) for e in examples])
        return pad_histories(examples)

    def score_catalogue(self, module, batch):
        assert not torch.is_grad_enabled()
        known = torch.nn.functional.one_hot(batch["item_index"].clamp(min=0), int(module.size))
        return (known * (batch["item_index"] >= 0)[..., None]).sum(1).float()


@pytest.fixture
def spy(bundle_of, monkeypatch):
    monkeypatch.setattr(lookup, "method_class", lambda name: Spy)
    method = {"name": "spy", "max_history": 3}
    engine = Recommender.load(bundle_of(method, {"size": torch.tensor(5)}, exclude_seen=False))
    Spy.batches.clear()
    return engine


def test_warming_up_asks_a_full_batch_of_long_histories(spy):
    spy.warm_up(4)
    (batch,) = Spy.batches
    assert [len(set(history)) for history, _ in batch] == [3] * 4
    assert len({tuple(history) for history, _ in batch}) == 3, "3 items can be turned 3 ways"


def test_ranking_titles_and_scores(engine):
    found = engine.recommend(["e"], k=2)
    assert ids(found) == ["d", "c"]
    assert [r.title for r in found] == ["Delta", "c"], "an item without a title shows its id"
    assert found[0].score > found[1].score


def test_seen_items_follow_the_protocol_and_the_request(bundle_of):
    strict = Recommender.load(bundle_of(exclude_seen=True))
    lax = Recommender.load(bundle_of(exclude_seen=False, name="lax"))
    assert ids(strict.recommend(["e", "d"], k=2)) == ["c", "b"]
    assert ids(lax.recommend(["e", "d"], k=2)) == ["e", "d"]
    asked = Query(("e",), k=1, exclude_seen=False)
    assert ids(strict.answers([asked])[0].items) == ["e"]


def test_k_beyond_the_catalogue_gives_what_there_is(engine):
    assert ids(engine.recommend(["a"], k=1000)) == ["e", "d", "c", "b"]


@pytest.mark.parametrize("k", [0, -1, 1001, 10**30])
def test_k_out_of_bounds_is_refused(engine, k):
    with pytest.raises(QueryError, match=r"`k` must be 1\.\.1000; got") as error:
        engine.recommend(["a"], k=k)
    assert error.value.field == "k"


def test_unknown_items_are_ignored_and_named_once(engine):
    answer = engine.answers([Query(("nobody", "e", "nobody", "x"), k=1)])[0]
    assert answer.unknown_items == ["nobody", "x"]
    assert not answer.cold_start
    assert ids(answer.items) == ["d"]


@pytest.mark.parametrize("history", [(), ("nobody",)])
def test_nothing_known_gives_the_most_popular(engine, history):
    answer = engine.answers([Query(history, k=3)])[0]
    assert answer.cold_start
    assert ids(answer.items) == ["b", "d", "c"], "50, 50 (lower index first), 30"
    assert [r.score for r in answer.items] == [50.0, 50.0, 30.0]


def test_cold_start_honours_exclude_and_filter(engine):
    query = Query((), k=5, exclude=("b",), filter={"genres": ["Drama", "Comedy"]})
    assert ids(engine.answers([query])[0].items) == ["c", "a"]


def test_exclude_ignores_unknown(engine):
    assert ids(engine.recommend(["a"], k=2, exclude=["e", "nobody"])) == ["d", "c"]


def test_only_the_newest_known_events_reach_the_model(spy):
    spy.answers([Query(("a", "b", "zz", "c", "d"), (1, 2, 3, 4, 5))])
    assert Spy.batches == [[([1, 2, 3], [2, 4, 5])]]


def test_seen_items_beyond_the_window_stay_hidden(spy):
    query = Query(("a", "b", "c", "d"), k=5, exclude_seen=True)
    assert ids(spy.answers([query])[0].items) == ["e"]


def test_one_pass_for_what_may_share_it_and_answers_in_order(spy):
    queries = [
        Query(("a",), k=2),
        Query((), k=1),
        Query(("b", "b"), k=2),
        Query(("c",), k=3),
        Query(("d",), k=2, filter={"item_id": ["d", "e"]}),
    ]
    answers = spy.answers(queries)
    assert [len(batch) for batch in Spy.batches] == [2, 1, 1]
    assert [ids(a.items) for a in answers] == [
        ["a", "b"],
        ["b"],
        ["b", "a"],
        ["c", "a", "b"],
        ["d", "e"],
    ]
    alone = [spy.answers([query])[0] for query in queries]
    assert alone == answers


def test_recommend_batch_equals_one_by_one(engine):
    histories = [["a"], ["b", "c", "d", "e"], []]
    assert engine.recommend_batch(histories, k=3) == [engine.recommend(h, k=3) for h in histories]


def test_scores_come_in_the_order_asked(spy):
    found = spy.score(["b", "b", "c"], ["a", "c", "nobody", "b"])
    assert [(r.item_id, r.score) for r in found] == [
        ("a", 0.0),
        ("c", 1.0),
        ("nobody", None),
        ("b", 2.0),
    ]
    cold = spy.score([], ["a", "b"])
    assert [r.score for r in cold] == [10.0, 50.0]


def test_scores_of_any_lists_are_one_pass_and_know_no_neighbour(spy):
    lists = [("a",), ("b", "c", "d", "e"), ("zz", "c", "c"), ("zz",), tuple("edcba")]
    queries = [Query((*"ab", "ce"[n % 2]), score_items=few) for n, few in enumerate(lists)]
    queries.insert(2, Query(("a",), k=2))
    answers = spy.answers(queries)
    assert sorted(len(batch) for batch in Spy.batches) == [1, 5], "one for scores, one for ranks"
    assert answers == [spy.answers([query])[0] for query in queries]
    assert [item.item_id for item in answers[1].items] == ["b", "c", "d", "e"]
    assert [item.score for item in answers[1].items] == [1.0, 0.0, 0.0, 1.0]
    assert [(item.item_id, item.score) for item in answers[3].items] == [("zz", None), ("c", 1.0)]


def test_an_item_without_a_score_has_none(spy, monkeypatch):
    infinite = torch.tensor([[-torch.inf, torch.inf, torch.nan, 1.0, 2.0]])
    monkeypatch.setattr(Spy, "score_catalogue", lambda *_: infinite)
    assert [r.score for r in spy.score(["a"], ["a", "b", "c", "d"])] == [None, None, None, 1.0]


def test_a_filter_that_nothing_passes_gives_nothing(engine):
    assert engine.recommend(["a"], filter={"genres": "Western"}) == []


def test_timestamps_must_not_fall(engine):
    history = [{"item_id": "a", "timestamp": 2}, {"item_id": "b", "timestamp": 1}]
    with pytest.raises(QueryError, match="oldest first") as error:
        engine.recommend(history)
    assert error.value.field == "history.1.timestamp"


@pytest.mark.parametrize("event", [1, None, {"timestamp": 1}, {"item_id": 1, "timestamp": 1}])
def test_malformed_events_are_refused(engine, event):
    with pytest.raises(QueryError, match=r"`history\.0` must be"):
        engine.recommend([event])


def test_a_model_that_answers_nonsense_is_refused(bundle_of):
    # The weights are finite, but infinite scores come out: only asking shows it.
    method = {"name": "sasrec", "dim": 2, "num_heads": 1, "num_layers": 1, "max_history": 3}
    config = lookup.parse_method_config(method)
    found = lookup.method_of(config)
    inputs = base.Inputs(_catalog_of(bundle_of()), lambda: iter(()))
    state = {k: torch.full_like(v, 1e30) for k, v in found.build(inputs).state_dict().items()}
    with pytest.raises(ArtifactError, match="self-test gave no finite scores"):
        Recommender.load(bundle_of(method, state, name="wild"))


def test_weights_that_do_not_fit_are_refused(bundle_of):
    method = {"name": "sasrec", "dim": 2, "num_heads": 1}
    with pytest.raises(ArtifactError, match=r"`bundle\.model` must fit the method 'sasrec'"):
        Recommender.load(bundle_of(method, {"wrong": torch.zeros(1)}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="bf16 is for CUDA devices")
def test_only_what_can_be_compiled_here_is(bundle_of):
    with pytest.raises(ConfigError, match=r"`compile` must be none for 'popularity'"):
        Recommender.load(bundle_of(), compile="default")


def test_half_precision_without_a_cuda_device_is_refused(bundle_of):
    with pytest.raises(ConfigError, match="`precision` must be fp32 where there is no CUDA device"):
        Recommender.load(bundle_of(), precision="bf16")


def test_an_unknown_method_is_named(bundle_of):
    with pytest.raises(ConfigError, match=r"got 'popularitee'.*Did you mean 'popularity'"):
        Recommender.load(bundle_of({"name": "popularitee"}))


def test_a_trained_model_answers_as_it_did_before_it_was_bundled(bundle_of):
    catalog = _catalog_of(bundle_of())
    method = {"name": "sasrec", "dim": 4, "num_heads": 1, "num_layers": 1, "max_history": 3}
    config = lookup.parse_method_config(method)
    found = lookup.method_of(config)
    torch.manual_seed(3)
    module = found.build(base.Inputs(catalog, lambda: iter(()))).eval()
    for weight in module.parameters():
        torch.nn.init.normal_(weight)
    uri = bundle_of(config.model_dump(mode="json"), module.state_dict(), name="sasrec")
    engine = Recommender.load(uri)
    states, table = module(torch.tensor([[0, 2]]))
    expected = (states[:, -1] @ table.T)[0]
    expected[[0, 2]] = -torch.inf
    order = expected.argsort(descending=True)[:3]
    answer = engine.recommend(["a", "c"], k=3)
    assert ids(answer) == [catalog.item_ids[i] for i in order]
    np.testing.assert_allclose([r.score for r in answer], expected[order].tolist(), rtol=1e-5)


def test_description(engine):
    facts = engine.describe()
    assert facts["model"].startswith("tiny@")
    assert facts["num_items"] == 5
    assert facts["max_history"] == 3
    assert "genres" in facts["filters"]


def _catalog_of(uri):
    from itemese.core.schema import Catalog

    return Catalog.read(Folder.at(uri))
