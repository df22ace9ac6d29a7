"""What every split promises, for random logs and for the real ones."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError
from itemese.core.schema import INTERACTIONS, Catalog, Histories, Split
from itemese.sequences.config import SequencesConfig
from itemese.sequences.stage import build_sequences

pytestmark = pytest.mark.ray

SPLITS = ["leave_one_out", "temporal", "by_user"]
LOGS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 12), st.integers(0, 60)), min_size=12, max_size=80
)


def write(folder: Path, rows, order=None, files=1) -> Folder:
    """Write rows ``(user, item, timestamp)``, in any order and number of files."""
    table = pa.table(
        {
            "user_id": [f"u{row[0]}" for row in rows],
            "item_id": [f"i{row[1]}" for row in rows],
            "timestamp": [row[2] for row in rows],
            "nanosecond": [0] * len(rows),
            "event": pa.nulls(len(rows), pa.string()),
            "rating": pa.nulls(len(rows), pa.float32()),
            "pos": pa.nulls(len(rows), pa.int64()),
            "row": list(range(len(rows))),
        }
    ).cast(INTERACTIONS)
    if order is not None:
        table = table.take([place for place in order if place < len(rows)])
    size = -(-len(rows) // files)
    for part in range(files):
        piece = table.slice(part * size, size)
        Folder.at(folder).child("interactions").write_table(f"part-{part}.parquet", piece)
    return Folder.at(folder)


def events_of(folder: Folder) -> list[tuple[str, str, int, int, int]]:
    """Return ``(user, item, timestamp, split, place)`` of all events."""
    ids, block = Catalog.read(folder).item_ids, Histories.read(folder)
    owner = np.repeat(np.arange(block.num_users), block.lengths())
    place = np.arange(len(owner)) - block.offsets[owner]
    return [
        (block.user_id[u], ids[i], int(t), int(s), int(p))
        for u, i, t, s, p in zip(
            owner, block.item_index, block.timestamp, block.split, place, strict=True
        )
    ]


@pytest.mark.parametrize("ties", ["input", "shuffle"])
@pytest.mark.parametrize("split", SPLITS)
def test_promises_of_a_split(ray_cluster, tmp_path_factory, split, ties):
    config = SequencesConfig(
        split=split, ties=ties, duplicates="keep", validation_share=0.2, test_share=0.2
    )
    held, refusals = [], []

    @given(LOGS, st.permutations(range(80)), st.integers(2, 5))
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def check(rows, order, num_shards):
        folder = tmp_path_factory.mktemp("split")
        out = Folder.at(folder / "out")
        try:
            summary = build_sequences(config, write(folder / "log", rows), out, seed=3)
        except DataError as error:
            refusals.append(str(error))
            return
        held.append(summary)
        events = events_of(out)
        check_promises(rows, events, summary)
        # The same rows in other blocks, other files and other shards: the same split.
        again = Folder.at(folder / "again")
        moved = write(folder / "moved", rows, order=order, files=3)
        sharded = config.model_copy(update={"num_shards": num_shards})
        other = build_sequences(sharded, moved, again, seed=3)
        assert sorted(events_of(again)) == sorted(events)
        assert {**other, "num_shards": 1} == summary
        assert (again.read_table("catalog.parquet")).equals(out.read_table("catalog.parquet"))

    check()
    assert held, "no random log could be split"
    assert all("so a part is empty" in said or "without times" in said for said in refusals)


def check_promises(rows, events, summary):
    """Assert what holds for every split of `rows`."""
    kept = Counter((user, item, time) for user, item, time, *_ in events)
    assert kept == Counter((f"u{u}", f"i{i}", t) for u, i, t in rows), "union is the input"
    by_user = {}
    for user, _, time, split, place in events:
        by_user.setdefault(user, []).append((place, time, split))
    for history in by_user.values():
        assert [place for place, *_ in history] == list(range(len(history)))
        times, splits = [t for _, t, _ in history], [s for *_, s in history]
        assert times == sorted(times), "no target precedes its history"
        order = [0 if split == Split.GIVEN else split for split in splits]
        assert order == sorted(order), "training or given, then validation, then test"
        if summary["split"] == "leave_one_out":
            held_out = [1, 2] if len(history) >= 3 else []
            assert splits == [0] * (len(history) - len(held_out)) + held_out
        if summary["split"] == "by_user":
            known, asked = splits.count(Split.GIVEN), len(set(splits) - {Split.GIVEN})
            assert asked <= 1, "a user belongs to one part"
            held_out = Split.TRAIN not in splits
            assert known == (max(1, len(history) // 2) if held_out else 0)
    if summary["split"] == "temporal":
        cuts = summary["cuts"]
        parts = [[e[2] for e in events if e[3] == part] for part in Split]
        assert max(parts[0]) < cuts["validation"] <= min(parts[1])
        assert max(parts[1]) < cuts["test"] <= min(parts[2])
        assert len(parts[2]) >= 0.2 * len(events), "a tie at the cut goes to the later part"


def test_split_hash_names_the_split_and_nothing_else(ray_cluster, tmp_path):
    rows = [(u, (u * 7 + n) % 11, 10 + n // 2) for u in range(6) for n in range(6)]
    log = write(tmp_path / "log", rows)

    def hash_of(log, name, **values):
        config = SequencesConfig(**values)
        return build_sequences(config, log, Folder.at(tmp_path / name), seed=1)["split_hash"]

    plain = hash_of(log, "plain")
    assert hash_of(log, "shards", num_shards=4) == plain
    assert hash_of(log, "shuffled", ties="shuffle") != plain
    assert hash_of(log, "cut", split="temporal", test_share=0.3, validation_share=0.3) != plain
    swapped = [*rows[:4], rows[5], rows[4], *rows[6:]]  # two items of one tie change places
    assert hash_of(write(tmp_path / "swapped", swapped), "other") != plain
    later = [(u, i, t + 1_000) for u, i, t in rows]  # times are no part of the hash
    assert hash_of(write(tmp_path / "later", later), "later_out") == plain


def real_log(root: Path, folder: Path) -> Folder:
    """Turn a shared data set into what the logs stage writes."""
    table = pq.ParquetFile(root / "interactions.parquet").read()
    size = len(table)
    columns = {name: table[name] for name in ("user_id", "item_id", "timestamp")}
    columns["nanosecond"] = pa.array(np.zeros(size, np.int32))
    columns["event"] = pa.nulls(size, pa.string())
    columns["rating"] = pa.nulls(size, pa.float32())
    columns["pos"] = table["pos"].cast(pa.int64())
    columns["row"] = pa.array(np.arange(size))
    log = Folder.at(folder)
    log.child("interactions").write_table("all.parquet", pa.table(columns).cast(INTERACTIONS))
    log.write_table("items.parquet", pq.ParquetFile(root / "items.parquet").read())
    return log


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "users", "items", "events", "tied", "decided"),
    [
        ("amazon_beauty", 22_363, 12_101, 198_502, 0.435228, 0.288072),
        ("movielens_1m", 6_040, 3_706, 1_000_209, 0.421192, 0.262446),
    ],
)
def test_real_logs_give_the_published_counts(
    ray_cluster, data_file, tmp_path, name, users, items, events, tied, decided
):
    data_file(f"{name}/items.parquet")
    events_file = data_file(f"{name}/interactions.parquet")
    log = real_log(events_file.parent, tmp_path / "log")
    config = SequencesConfig(min_user_events=5, num_shards=2)
    out = Folder.at(tmp_path / "out")
    summary = build_sequences(config, log, out, seed=0)
    assert [summary[n] for n in ("num_users", "num_items", "num_events")] == [users, items, events]
    assert summary["duplicates_removed"] == 0
    assert summary["order"] == "pos"
    # Both shares were computed once with pandas from the file (the last event of each user).
    assert summary["targets"]["test"]["tied_share"] == pytest.approx(tied)
    assert summary["targets"]["test"]["decided_by_tie"] == pytest.approx(decided)
    source = pq.ParquetFile(events_file).read().to_pandas()
    source = source.sort_values(["user_id", "pos"], kind="stable")
    found = sorted(events_of(out), key=lambda e: (e[0], e[4]))
    assert [e[1] for e in found] == source.item_id.tolist()
    shuffled = build_sequences(
        config.model_copy(update={"ties": "shuffle"}), log, Folder.at(tmp_path / "twin"), seed=0
    )
    assert shuffled["split_hash"] != summary["split_hash"]
    assert shuffled["targets"] == summary["targets"]
    replaced = last_items(out) != last_items(Folder.at(tmp_path / "twin"))
    assert replaced.mean() == pytest.approx(decided, abs=0.03)


def last_items(folder: Folder) -> np.ndarray:
    """Return the test item of each user, users in the order of the shards."""
    block = Histories.read(folder)
    return block.item_index[block.offsets[1:] - 1]
