"""Ratings become labels: which events were clicks, and what stays as it was without them."""

import numpy as np
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError
from itemese.core.schema import Catalog, Histories, Split
from itemese.sequences.config import SequencesConfig
from itemese.sequences.stage import build_sequences

pytestmark = pytest.mark.ray

ROWS = [
    (f"u{user}", f"i{(user + step) % 7}", 100 * step, None, (user * step) % 5 + 1)
    for user in range(9)
    for step in range(6)
]


def build(log, out, **values):
    folder = Folder.at(out).create()
    counts = build_sequences(SequencesConfig(**values), log, folder, seed=3)
    return folder, counts


def labels(folder):
    """Return each user's labels by the event's item and time."""
    block, found = Histories.read(folder), {}
    names = folder.read_table("catalog.parquet")["item_id"].to_pylist()
    for user in range(block.num_users):
        example = block.request(user)
        rows = zip(example.history, example.timestamp, example.clicked, strict=True)
        found |= {(example.user_id, names[i], int(t)): bool(c) for i, t, c in rows}
    return found


def test_a_rating_at_the_border_is_a_click_wherever_its_user_lies(ray_cluster, write_log, tmp_path):
    wanted = {(u, i, t): rating >= 4 for u, i, t, _, rating in ROWS}
    log = write_log(ROWS, files=3, group=5)
    one, counts = build(log, tmp_path / "one", clicked_at=4)
    many, _ = build(log, tmp_path / "many", clicked_at=4, num_shards=4, ties="shuffle")
    assert labels(one) == labels(many) == wanted
    block = Histories.read(one)
    held = {s: int(block.clicked[block.split == s].sum()) for s in Split}
    assert counts["clicks"] == {s.name.lower(): held[s] for s in Split if s != Split.GIVEN}
    back = Histories.from_table(block.to_table())
    np.testing.assert_array_equal(back.clicked, block.clicked)
    kept = block.up_to(Split.VALIDATION)
    np.testing.assert_array_equal(kept.clicked, block.clicked[block.split <= Split.VALIDATION])


def test_ratings_are_compared_as_exactly_as_they_are_stored(ray_cluster, write_log, tmp_path):
    rows = [("u", f"i{n}", n, None, rating) for n, rating in enumerate((4.1, 4.0999, 3.9))]
    folder, _ = build(write_log(rows), tmp_path / "out", clicked_at=4.1)
    assert Histories.read(folder).clicked.tolist() == [True, False, False]


def test_the_first_of_equal_events_gives_the_label(ray_cluster, write_log, tmp_path):
    rows = [("u", "a", 1, None, 5), ("u", "a", 1, None, 1), ("u", "b", 2, None, 1)]
    folder, _ = build(write_log(rows), tmp_path / "out", clicked_at=4)
    assert Histories.read(folder).clicked.tolist() == [True, False]


def test_a_missing_rating_is_one_sentence(ray_cluster, write_log, tmp_path):
    rows = [*ROWS[:5], ("u0", "i0", 900)]
    with pytest.raises(DataError, match=r"`sequences\.clicked_at` must be left out"):
        build(write_log(rows), tmp_path / "out", clicked_at=4)


def test_without_labels_nothing_changes(ray_cluster, write_log, tmp_path):
    log = write_log(ROWS)
    plain, counts = build(log, tmp_path / "plain")
    rated, others = build(log, tmp_path / "rated", clicked_at=4)
    assert "clicks" not in counts
    table = plain.child("histories").read_table("shard-00000.parquet")
    assert table.column_names == ["user_id", "item_index", "timestamp", "split", "rating"]
    assert Histories.read(plain).clicked is None
    assert counts["split_hash"] == others["split_hash"]
    rest = rated.child("histories").read_table("shard-00000.parquet").drop_columns("clicked")
    assert rest == table


def test_ratings_stay_beside_their_events(ray_cluster, write_log, tmp_path):
    rows = [(*ROWS[0][:4], None), *ROWS[1:]]  # one rating is unknown
    wanted = {(u, i, t): rating for u, i, t, _, rating in rows}
    log = write_log(rows, files=3, group=5)
    folder, _ = build(log, tmp_path / "out", num_shards=3, ties="shuffle")
    names = Catalog.read(folder).item_ids
    found = {}
    for block in Histories.stream(folder):
        assert block.rating.dtype == np.float32
        for user in range(block.num_users):
            row = block.request(user, longest=4)
            for item, time, rating in zip(row.history, row.timestamp, row.rating, strict=True):
                known = None if np.isnan(rating) else float(rating)
                found[row.user_id, names[item], int(time)] = known
    assert found == {key: wanted[key] for key in found}
    assert len(found) == 36, "the newest four of nine users"
    block = Histories.read(folder)
    again = Histories.from_table(block.to_table())
    np.testing.assert_array_equal(again.rating, block.rating)
    kept = block.only(Split.TEST)
    np.testing.assert_array_equal(kept.rating, block.rating[block.split == Split.TEST])


def test_a_log_without_ratings_carries_none(ray_cluster, write_log, tmp_path):
    folder, _ = build(write_log([row[:4] for row in ROWS]), tmp_path / "out")
    assert Histories.read(folder).rating is None
    assert Histories.read(folder).request(0).rating is None
