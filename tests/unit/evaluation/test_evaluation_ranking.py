"""Ranking users: exclusion, repeats, order, sampling, bad outputs; each by hand."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, TrainingError
from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Catalog, Histories, Split
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.ranking import PerUser, method_ranker, rank_users

CONFIG = EvaluationConfig(cutoffs=(2, 4), batch_size=2)


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
    """Rank every user by the same item scores."""

    def rank(user_ids, requests, k, candidates):
        if calls is not None:
            calls.append((list(user_ids), [e.history.tolist() for e in requests], k, candidates))
        return Ranking.from_scores(torch.tensor(scores).repeat(len(user_ids), 1), k, candidates)

    return rank


CATALOG = catalog_of([9, 8, 7, 6, 5, 4])
FALLING = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
# u0 has seen 0 1; u1 has seen 5 4 3; u2 is asked for item 0 again.
BLOCK = block_of([[0, 1, 2], [5, 4, 3, 1], [0, 3, 0]])


def test_ranks_are_places_among_what_is_left():
    got = rank_users(scores_ranker(FALLING), [BLOCK], Split.TEST, config=CONFIG, catalog=CATALOG)
    assert got.user_id == ["u0", "u1", "u2"]
    assert got.target.tolist() == [2, 1, 0]
    assert got.rank.tolist() == [1, 2, 0]
    assert got.recommended.tolist() == [[2, 3, 4, 5], [0, 1, 2, -1], [1, 2, 4, 5]]
    assert got.target_seen.tolist() == [False, False, True]
    assert got.unfilled.tolist() == [0, 0, 0], "u1 has only three candidates, all were given"
    assert got.history_length.tolist() == [2, 3, 2]
    assert got.target_train_count.tolist() == [7, 8, 9]


def test_seen_items_stay_when_exclusion_is_off():
    got = rank_users(
        scores_ranker(FALLING),
        [BLOCK],
        Split.TEST,
        config=CONFIG,
        catalog=CATALOG,
        exclude_seen=False,
    )
    assert got.rank.tolist() == [3, 2, 1]
    assert got.seen.tolist() == [0, 0, 0]
    assert not got.exclude_seen


def test_validation_does_not_see_the_test_event():
    calls = []
    got = rank_users(
        scores_ranker(FALLING, calls), [BLOCK], Split.VALIDATION, config=CONFIG, catalog=CATALOG
    )
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
    rank_users(
        scores_ranker(FALLING, calls),
        [block_of([[0, 1, 2, 3, 4]])],
        Split.TEST,
        config=CONFIG,
        catalog=CATALOG,
        longest=2,
    )
    ((_, histories, k, candidates),) = calls
    assert histories == [[2, 3]]
    assert k == 4
    assert sorted(candidates.exclude[0].tolist()) == [0, 1, 2, 3]


def test_batches_are_of_similar_length_and_results_in_input_order():
    generator = np.random.default_rng(0)
    histories = [
        generator.integers(0, 50, size=n).tolist() for n in generator.integers(3, 30, size=41)
    ]
    calls = []

    def rank(user_ids, requests, k, candidates):
        calls.append([len(e.history) for e in requests])
        numbers = torch.tensor([[int(u[1:]), 0, 0, 0] for u in user_ids])
        return Ranking(numbers, torch.zeros(len(user_ids), 4))

    blocks = [block_of(histories)]
    catalog = catalog_of([1] * 50)
    got = rank_users(rank, blocks, Split.TEST, config=CONFIG, catalog=catalog, exclude_seen=False)
    assert got.recommended[:, 0].tolist() == list(range(41))
    lengths = [n for batch in calls for n in batch]
    assert lengths == sorted(lengths)
    assert max(len(batch) for batch in calls) == 2


def test_sharding_changes_neither_ranks_nor_the_drawn_users():
    generator = np.random.default_rng(1)
    histories = [generator.integers(0, 6, size=n).tolist() for n in generator.integers(3, 9, 60)]
    whole = block_of(histories)
    pieces = [block_of([h], prefix=f"x{n}-") for n, h in enumerate(histories)]
    for number, piece in enumerate(pieces):
        piece.user_id[0] = f"u{number}"
    ranker = scores_ranker(FALLING)
    for draw in (None, 7):
        runs = [
            rank_users(
                ranker, b, Split.TEST, config=CONFIG, catalog=CATALOG, max_users=draw, seed=3
            )
            for b in ([whole], pieces, pieces[::-1])
        ]
        rows = [dict(zip(r.user_id, r.rank.tolist(), strict=True)) for r in runs]
        assert rows[0] == rows[1] == rows[2]
        assert len(rows[0]) == (draw or 60)
    other = rank_users(
        ranker, [whole], Split.TEST, config=CONFIG, catalog=CATALOG, max_users=7, seed=4
    )
    assert set(other.user_id) != set(rows[0])


def test_bad_outputs_are_counted_and_never_score():
    lists = torch.tensor([[6, 2, 2, -1], [5, 1, -1, -1], [0, 1, 2, -7]])

    def rank(user_ids, requests, k, candidates):
        chosen = torch.tensor([int(u[1:]) for u in user_ids])
        return Ranking(lists[chosen], torch.zeros(len(user_ids), k))

    got = rank_users(rank, [BLOCK], Split.TEST, config=CONFIG, catalog=CATALOG)
    assert got.illegal.tolist() == [1, 0, 1]
    assert got.duplicates.tolist() == [1, 0, 0]
    assert got.seen.tolist() == [0, 1, 1]
    assert got.unfilled.tolist() == [1, 1, 0]
    assert got.rank.tolist() == [2, 2, 0], "u2's target was excluded, so its hit is void"


def test_nan_scores_stop_with_one_sentence():
    def rank(user_ids, requests, k, candidates):
        return Ranking(torch.zeros(len(user_ids), k, dtype=torch.long), torch.tensor([[torch.nan]]))

    with pytest.raises(TrainingError, match="must give scores that are numbers; got NaN"):
        rank_users(rank, [BLOCK], Split.TEST, config=CONFIG, catalog=CATALOG)


def test_nobody_to_rank_is_an_empty_table():
    ranker = scores_ranker(FALLING)
    for blocks in ([], [BLOCK.only(Split.TRAIN)]):
        for draw in (None, 3):
            got = rank_users(
                ranker, blocks, Split.TEST, config=CONFIG, catalog=CATALOG, max_users=draw
            )
            assert got.num_users == 0
            assert got.recommended.shape == (0, 4)


def test_per_user_rows_survive_the_disk(tmp_path):
    got = rank_users(scores_ranker(FALLING), [BLOCK], Split.TEST, config=CONFIG, catalog=CATALOG)
    folder = Folder.at(tmp_path)
    got.write(folder, "per_user.parquet")
    back = PerUser.read(folder, "per_user.parquet")
    assert back.user_id == got.user_id
    assert (back.num_items, back.exclude_seen, back.seconds) == (6, True, got.seconds)
    for name in ("target", "rank", "recommended", "target_head", "list_popularity", "seen"):
        np.testing.assert_array_equal(getattr(back, name), getattr(got, name))
    folder.write_table("other.parquet", pa.table({"x": [1]}))
    with pytest.raises(ArtifactError, match="must be a table of ranked users"):
        PerUser.read(folder, "other.parquet")


class Toy:
    """A method whose module drops everything out in training mode."""

    def collate(self, requests):
        return {"last": torch.tensor([int(e.history[-1]) for e in requests])}

    def predict(self, module, batch, k, candidates):
        assert not torch.is_grad_enabled()
        return Ranking.from_scores(module(batch["last"]), k, candidates)


def test_method_ranker_is_in_eval_mode_and_puts_modes_back():
    module = nn.Sequential(nn.Embedding(6, 6), nn.Dropout(0.9), nn.Identity())
    module.train()
    module[2].eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(6))
    ranker = method_ranker(Toy(), module, "cpu")
    got = rank_users(
        ranker, [BLOCK], Split.TEST, config=CONFIG, catalog=CATALOG, exclude_seen=False
    )
    assert got.recommended[:, 0].tolist() == [1, 3, 3], "the identity recommends the last item"
    assert (module.training, module[1].training, module[2].training) == (True, True, False)


def test_allowed_candidates_reach_the_method():
    ranker = method_ranker(Toy(), nn.Embedding(6, 6), "cpu")
    allowed = torch.tensor([False, False, True, False, False, False])
    example = BLOCK.request(0, 2)
    ranking = ranker(["u0"], [example], 3, Candidates(allowed=allowed))
    assert ranking.item_index.tolist() == [[2, -1, -1]]


def test_head_is_the_most_trained_share_and_popularity_a_percentile():
    catalog = catalog_of([0, 5, 5, 9, 1])
    block = block_of([[0, 1, 3], [0, 4, 1], [0, 4, 2]])
    config = EvaluationConfig(cutoffs=(1,), head_share=0.4)
    ranker = scores_ranker([0.0, 0.0, 0.0, 5.0, 0.0])
    got = rank_users(ranker, [block], Split.TEST, config=config, catalog=catalog)
    assert got.target_head.tolist() == [True, True, False], "equal counts: the lower item_index"
    np.testing.assert_allclose(got.target_popularity, [0.8, 0.4, 0.4])
    np.testing.assert_allclose(got.list_popularity, [0.8, 0.8, 0.8])
