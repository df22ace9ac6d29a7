"""Ranking the catalogue: exclusion, repeats, order, one pass, bad outputs; each by hand."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from asked import ask, ranked
from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, TrainingError
from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Catalog, Histories, Split
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.model import Model, model_of
from itemese.evaluation.rows import among, items_before, sample
from itemese.evaluation.tasks.lookup import read_judged, task_named
from itemese.evaluation.tasks.next_item import Ranked

CONFIG = EvaluationConfig(cutoffs=(2, 4), batch_size=2)
TASK = task_named("next_item")


def catalog_of(train_count):
    ids = [f"i{n}" for n in range(len(train_count))]
    table = pa.table({"item_id": ids, "title": ids, "train_count": train_count})
    return Catalog.from_table(table)


def block_of(histories, prefix="u"):
    """Leave-one-out: the last event is the test target, the one before it validation's."""
    sizes = [len(h) for h in histories]
    split = np.concatenate([[0] * (n - 2) + [1, 2] for n in sizes]).astype(np.int8)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    items = np.concatenate(histories).astype(np.int32)
    times = np.concatenate([np.arange(n) for n in sizes]).astype(np.int64)
    return Histories([f"{prefix}{n}" for n in range(len(sizes))], offsets, items, times, split)


def scores_ranker(scores, calls=None):
    """Rank for every user by the same item scores."""

    def rank(requests, k, candidates):
        if calls is not None:
            users = [request.user_id for request in requests]
            calls.append((users, [r.history.tolist() for r in requests], k, candidates))
        return Ranking.from_scores(torch.tensor(scores).repeat(len(requests), 1), k, candidates)

    return rank


def judge(model, blocks, split=Split.TEST, *, catalog=None, config=CONFIG, **settings):
    """Rank blocks of histories; `model` may be a ranker that gets the items to exclude."""
    model = model if isinstance(model, Model) else Model(rank=model)
    asked = [ask(block, split) for block in blocks]
    return TASK.judge_all(model, asked, config=config, catalog=catalog or CATALOG, **settings)


CATALOG = catalog_of([9, 8, 7, 6, 5, 4])
FALLING = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
# u0 has seen 0 1; u1 has seen 5 4 3; u2 is asked for item 0 again.
BLOCK = block_of([[0, 1, 2], [5, 4, 3, 1], [0, 3, 0]])


def test_ranks_are_places_among_what_is_left():
    got = judge(scores_ranker(FALLING), [BLOCK])
    assert got.user_id == ["u0", "u1", "u2"]
    assert got.target.tolist() == [2, 1, 0]
    assert got.rank.tolist() == [1, 2, 0]
    assert got.recommended.tolist() == [[2, 3, 4, 5], [0, 1, 2, -1], [1, 2, 4, 5]]
    assert got.target_seen.tolist() == [False, False, True]
    assert got.unfilled.tolist() == [0, 0, 0], "u1 has only three candidates, all were given"
    assert got.history_length.tolist() == [2, 3, 2]
    assert got.target_train_count.tolist() == [7, 8, 9]


def test_seen_items_stay_when_exclusion_is_off():
    config = CONFIG.model_copy(update={"exclude_seen": False})
    got = judge(scores_ranker(FALLING), [BLOCK], config=config)
    assert got.rank.tolist() == [3, 2, 1]
    assert got.seen.tolist() == [0, 0, 0]
    assert not got.exclude_seen


def test_one_pass_gives_both_protocols_of_seen_items():
    draw = np.random.default_rng(3)
    histories = [draw.integers(0, 30, size=n).tolist() for n in draw.integers(3, 25, 60)]
    block, catalog = block_of(histories), catalog_of([1] * 30)
    scores = draw.integers(0, 6, size=(60, 30)).astype(np.float32)  # many ties
    scores[draw.random(scores.shape) < 0.1] = -np.inf
    calls = []

    def rank(requests, k, candidates):
        calls.append(k)
        rows = [int(request.user_id[1:]) for request in requests]
        return Ranking.from_scores(torch.from_numpy(scores[rows]), k, candidates)

    for exclude in (True, False):
        config = CONFIG.model_copy(update={"exclude_seen": exclude})
        calls.clear()
        both = Model(rank=rank, ranks_by_scores=True)
        once = judge(both, [block], catalog=catalog, config=config)
        assert len(calls) == 30, "one call a batch of two"
        twice = judge(rank, [block], catalog=catalog, config=config, twins=True)
        assert len(calls) == 90, "and one for each protocol"
        for name in ("rank", "twin_rank", "recommended", "seen", "unfilled", "target_seen"):
            np.testing.assert_array_equal(getattr(once, name), getattr(twice, name), name)
        ((name, twin),) = TASK.twins(once).items()
        assert name == ("seen_allowed" if exclude else "seen_excluded")
        other = config.model_copy(update={"exclude_seen": not exclude})
        alone = judge(rank, [block], catalog=catalog, config=other)
        np.testing.assert_array_equal(twin.rank, alone.rank)
        assert twin.metric("ndcg@4") == alone.metric("ndcg@4") != once.metric("ndcg@4")
        assert TASK.twins(alone) == {}, "it was not asked for its twin"


def test_validation_does_not_see_the_test_event():
    calls = []
    got = judge(scores_ranker(FALLING, calls), [BLOCK], Split.VALIDATION)
    assert got.target.tolist() == [1, 3, 3]
    histories = {u: h for users, hs, _, _ in calls for u, h in zip(users, hs, strict=True)}
    assert histories == {"u0": [0], "u1": [5, 4], "u2": [0]}
    excluded = {
        u: sorted(set(row.tolist()) - {-1})
        for users, _, _, c in calls
        for u, row in zip(users, c.exclude, strict=True)
    }
    assert excluded == {"u0": [0], "u1": [4, 5], "u2": [0]}


def test_short_input_but_whole_exclusion():
    calls = []
    model = Model(rank=scores_ranker(FALLING, calls), max_history=2)
    judge(model, [block_of([[0, 1, 2, 3, 4]])])
    ((_, histories, k, candidates),) = calls
    assert histories == [[2, 3]]
    assert k == 4
    assert sorted(candidates.exclude[0].tolist()) == [0, 1, 2, 3]


def test_several_targets_of_a_user_are_rows_of_their_own():
    items = np.array([0, 1, 2, 3, 1, 5, 4, 2], np.int32)
    split = np.array([0, 0, 2, 2, 2, 0, 2, 2], np.int8)
    times = np.array([1, 2, 8, 9, 10, 3, 8, 9], np.int64)
    block = Histories(["u0", "u1"], np.array([0, 5, 8]), items, times, split)
    got = judge(Model(rank=scores_ranker(FALLING), ranks_by_scores=True), [block])
    assert got.user_id == ["u0", "u0", "u0", "u1", "u1"]
    assert got.history_length.tolist() == [2, 3, 4, 1, 2]
    assert got.target.tolist() == [2, 3, 1, 4, 2]
    assert got.recommended[:, 0].tolist() == [2, 3, 4, 0, 0], "earlier targets are seen"
    assert got.rank.tolist() == [1, 1, 0, 0, 3]
    assert got.metric("recall@4") == 3 / 5, "requests weigh equally"
    assert (got.num_requests, got.num_users) == (5, 2)


def test_batches_are_of_similar_length_and_results_in_input_order():
    generator = np.random.default_rng(0)
    histories = [
        generator.integers(0, 50, size=n).tolist() for n in generator.integers(3, 30, size=41)
    ]
    calls = []

    def rank(requests, k, candidates):
        calls.append([len(request.history) for request in requests])
        numbers = torch.tensor([[int(request.user_id[1:]), 0, 0, 0] for request in requests])
        return Ranking(numbers, torch.zeros(len(requests), 4))

    got = judge(rank, [block_of(histories)], catalog=catalog_of([1] * 50))
    assert got.recommended[:, 0].tolist() == list(range(41))
    lengths = [n for batch in calls for n in batch]
    assert lengths == sorted(lengths)
    assert max(len(batch) for batch in calls) == 2


def test_sharding_changes_neither_ranks_nor_the_drawn_users():
    generator = np.random.default_rng(1)
    histories = [generator.integers(0, 6, size=n).tolist() for n in generator.integers(3, 9, 60)]
    whole = block_of(histories)
    pieces = [whole.take(np.array([user])) for user in range(60)]
    for draw in (None, 7):
        rows = []
        for blocks in ([whole], pieces, pieces[::-1]):
            asked = [ask(block) for block in blocks]
            asked = asked if draw is None else [sample(asked, draw, seed=3)]
            model = Model(rank=scores_ranker(FALLING))
            got = TASK.judge_all(model, asked, config=CONFIG, catalog=CATALOG)
            rows.append(dict(zip(got.user_id, got.rank.tolist(), strict=True)))
        assert rows[0] == rows[1] == rows[2]
        assert len(rows[0]) == (draw or 60)
    other, _ = sample([ask(whole)], 7, seed=4)
    assert set(other.user_id) != set(rows[0])


def test_a_drawn_user_keeps_all_requests():
    items = np.tile(np.arange(4, dtype=np.int32), 9)
    split = np.tile(np.array([0, 0, 2, 2], np.int8), 9)
    offsets = np.arange(0, 37, 4)
    names = [f"u{user}" for user in range(9)]
    block = Histories(names, offsets, items, np.arange(36), split)
    users, requests = sample(
        [ask(block.take(np.arange(5))), ask(block.take(np.arange(5, 9)))], 3, 0
    )
    assert users.num_users == 3
    assert sorted(requests.user_id) == sorted(2 * users.user_id)


def test_among_finds_what_isin_finds():
    values = np.array([[-1, 0, 3], [5, 9, 3]])
    for rising in ([], [3], [0, 3, 9], [4]):
        expected = np.isin(values, rising)
        np.testing.assert_array_equal(among(values, np.array(rising, dtype=np.int64)), expected)


def test_items_before_a_request_are_distinct():
    block, requests = ask(BLOCK)
    assert [items.tolist() for items in items_before(block, requests)] == [
        [0, 1],
        [3, 4, 5],
        [0, 3],
    ]


def test_bad_outputs_are_counted_and_never_score():
    lists = torch.tensor([[6, 2, 2, -1], [5, 1, -1, -1], [0, 1, 2, -7]])

    def rank(requests, k, candidates):
        chosen = torch.tensor([int(request.user_id[1:]) for request in requests])
        return Ranking(lists[chosen], torch.zeros(len(requests), k))

    got = judge(rank, [BLOCK])
    assert got.illegal.tolist() == [1, 0, 1]
    assert got.duplicates.tolist() == [1, 0, 0]
    assert got.seen.tolist() == [0, 1, 1]
    assert got.unfilled.tolist() == [1, 1, 0]
    assert got.rank.tolist() == [2, 2, 0], "u2's target was excluded, so its hit is void"


@pytest.mark.parametrize("by_scores", [True, False])
def test_nan_scores_stop_with_one_sentence(by_scores):
    def rank(requests, k, candidates):
        items = torch.zeros(len(requests), k, dtype=torch.long)
        return Ranking(items, torch.tensor([[torch.nan]]))

    with pytest.raises(TrainingError, match="must give scores that are numbers; got nan"):
        judge(Model(rank=rank, ranks_by_scores=by_scores), [BLOCK])


def test_nobody_to_rank_is_an_empty_table(tmp_path):
    for blocks in ([], [BLOCK.only(Split.TRAIN)]):
        got = judge(scores_ranker(FALLING), blocks)
        assert (got.num_requests, got.num_users) == (0, 0)
        assert np.isnan(got.metric("recall@4"))
        joined = Ranked.concat([got, judge(scores_ranker(FALLING), [BLOCK])])
        assert joined.rank.tolist() == [1, 2, 0]
    assert Ranked.concat([]).num_requests == 0


def test_judged_rows_survive_the_disk(tmp_path):
    got = judge(scores_ranker(FALLING), [BLOCK], twins=True)
    folder = Folder.at(tmp_path)
    got.write(folder, "next_item")
    back = read_judged(folder)
    assert isinstance(back, Ranked)
    assert back.user_id == got.user_id
    assert (back.num_items, back.exclude_seen, back.seconds) == (6, True, got.seconds)
    for name in ("target", "rank", "twin_rank", "recommended", "target_head", "list_popularity"):
        np.testing.assert_array_equal(getattr(back, name), getattr(got, name))
    folder.write_table("other.parquet", pa.table({"x": [1]}))
    with pytest.raises(ArtifactError, match="must be a table of judged requests"):
        read_judged(folder, "other.parquet")


class Toy:
    """A method whose module drops everything out in training mode."""

    class config:  # noqa: N801
        max_history = 50

    ranks_by_scores = False

    def collate(self, requests):
        return {"last": torch.tensor([int(e.history[-1]) for e in requests])}

    def predict(self, module, batch, k, candidates):
        assert not torch.is_grad_enabled()
        return Ranking.from_scores(module(batch["last"]), k, candidates)


def test_a_model_is_in_eval_mode_and_puts_modes_back():
    module = nn.Sequential(nn.Embedding(6, 6), nn.Dropout(0.9), nn.Identity())
    module.train()
    module[2].eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(6))
    config = CONFIG.model_copy(update={"exclude_seen": False})
    got = judge(model_of(Toy(), module, "cpu"), [BLOCK], config=config)
    assert got.recommended[:, 0].tolist() == [1, 3, 3], "the identity recommends the last item"
    assert (module.training, module[1].training, module[2].training) == (True, True, False)


def test_allowed_candidates_reach_the_method():
    model = model_of(Toy(), nn.Embedding(6, 6), "cpu")
    allowed = torch.tensor([False, False, True, False, False, False])
    ranking = model.rank([BLOCK.request(0, 2)], 3, Candidates(allowed=allowed))
    assert ranking.item_index.tolist() == [[2, -1, -1]]


def test_head_is_the_most_trained_share_and_popularity_a_percentile():
    catalog = catalog_of([0, 5, 5, 9, 1])
    block = block_of([[0, 1, 3], [0, 4, 1], [0, 4, 2]])
    config = EvaluationConfig(cutoffs=(1,), head_share=0.4)
    got = judge(scores_ranker([0.0, 0.0, 0.0, 5.0, 0.0]), [block], catalog=catalog, config=config)
    assert got.target_head.tolist() == [True, True, False], "equal counts: the lower index"
    np.testing.assert_allclose(got.target_popularity, [0.8, 0.4, 0.4])
    np.testing.assert_allclose(got.list_popularity, [0.8, 0.8, 0.8])


def test_checks_show_what_must_be_zero():
    bad = np.array([0, 2], dtype=np.int32)
    rows = ranked([1, 0], illegal=bad, seen=bad, duplicates=bad, target_seen=bad > 0)
    config = EvaluationConfig(cutoffs=(5, 10))
    assert TASK.counts(rows, config)["checks"] == {
        "illegal": 2,
        "duplicates": 2,
        "seen_recommended": 2,
        "unfilled": 0,
        "targets_seen": 1,
        "targets_excluded": 1,
    }
    rows = ranked([1, 0], target_seen=bad > 0, exclude_seen=False)
    assert TASK.counts(rows, config)["checks"]["targets_excluded"] == 0


def test_illegal_outputs_do_not_count_as_coverage():
    config = EvaluationConfig(cutoffs=(5, 10))
    diversity = TASK.counts(ranked([1, 3]), config)["diversity"]
    assert diversity["coverage@5"] == pytest.approx(5 / 40)
    assert diversity["coverage@10"] == pytest.approx(10 / 40)
    assert diversity["popularity"] == {"recommended": 0.75, "targets": 0.5}
    rows = ranked([0], recommended=np.array([[99, 1, 1, -1, -1, -1, -1, -1, -1, -1]]))
    assert TASK.counts(rows, config)["diversity"]["coverage@10"] == pytest.approx(1 / 40)
