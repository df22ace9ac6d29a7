"""Ratings become labels: which events were clicks, and what stays as it was without them."""

import numpy as np
import pytest

from itemese.core.artifacts import Folder
from itemese.core.config import digest_of
from itemese.core.errors import DataError
from itemese.core.schema import Histories, Split
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
    assert counts["clicks"] == {s.name.lower(): held[s] for s in Split}
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
    assert table.column_names == ["user_id", "item_index", "timestamp", "split"]
    assert Histories.read(plain).clicked is None
    assert counts["split_hash"] == others["split_hash"]
    rest = rated.child("histories").read_table("shard-00000.parquet").drop_columns("clicked")
    assert rest == table


def test_the_key_is_that_of_a_section_without_the_setting():
    plain = SequencesConfig()
    values = plain.model_dump(mode="json")
    assert "clicked_at" not in values
    assert plain.digest() == digest_of(values) == "bb123b4a1d76f460"
    assert SequencesConfig(clicked_at=4).model_dump()["clicked_at"] == 4
