"""The whole stage against a slow twin that works user by user in plain Python."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, DataError
from itemese.core.schema import Catalog, Histories, Split
from itemese.sequences import stage
from itemese.sequences.config import SequencesConfig
from itemese.sequences.stage import build_sequences

pytestmark = pytest.mark.ray

Rows = list[tuple[Any, ...]]
Found = dict[str, list[tuple[str, int, int]]]


def random_rows(seed: int, num_events: int = 3_000, kind: str = "times") -> Rows:
    """Return rows whose order is found by times, by quarters of a second or by places."""
    rng = np.random.default_rng(seed)
    users = (120 * rng.random(num_events) ** 2).astype(int)
    items = (150 * rng.random(num_events) ** 2).astype(int)
    times = rng.integers(1_000, 1_300, num_events).tolist()
    if kind == "fractions":
        times = (rng.integers(4_000, 4_400, num_events) / 4).tolist()
    rows = [(f"u{u}", f"item-{i}", t) for u, i, t in zip(users, items, times, strict=True)]
    if kind == "pos":
        places = rng.permutation(num_events)
        rows = [(*row, int(place)) for row, place in zip(rows, places, strict=True)]
    return rows


def slow_twin(rows: Rows, config: SequencesConfig) -> Found:
    """Do what the stage does for ``ties: input``, one event after the other."""
    order = config.order
    if order == "auto":
        order = "pos" if len(rows[0]) > 3 else "timestamp"
    numbered = [(*(*row, None)[:4], n) for n, row in enumerate(rows)]

    def key(event: tuple[Any, ...]) -> tuple[int, ...]:
        _, _, time, pos, row = event
        first = {"pos": (pos, row), "timestamp": (time, row), "input": (row,)}[order]
        return (time, *first) if config.split == "temporal" else first

    events = sorted(numbered, key=key)
    if config.duplicates == "drop":
        seen, once = set(), []
        for event in events:
            if event[:3] not in seen:
                once.append(event)
            seen.add(event[:3])
        events = once
    while True:
        of_user, of_item = Counter(e[0] for e in events), Counter(e[1] for e in events)
        left = [
            e
            for e in events
            if of_user[e[0]] >= config.min_user_events and of_item[e[1]] >= config.min_item_events
        ]
        if len(left) == len(events):
            break
        events = left
    histories = defaultdict(list)
    for user, item, time, *_ in events:
        histories[user].append((item, time))
    times = sorted(int(e[2]) for e in events)
    earlier = 1.0 - config.test_share - config.validation_share
    cuts = times[int(len(times) * earlier)], times[int(len(times) * (1.0 - config.test_share))]
    found: Found = {}
    for user, history in histories.items():
        found[user] = []
        for place, (item, time) in enumerate(history):
            if config.split == "temporal":
                split = Split.TEST if time >= cuts[1] else Split.VALIDATION
                split = Split.TRAIN if time < cuts[0] else split
            else:
                left_over = len(history) - place
                split = {1: Split.TEST, 2: Split.VALIDATION}.get(left_over, Split.TRAIN)
                split = Split.TRAIN if len(history) < 3 else split
            found[user].append((item, int(time), int(split)))
    return found


def in_hash_order(ids: Iterable[str]) -> list[str]:
    """Order ids by blake2b of eight bytes under the catalogue's key."""
    key = b"itemese catalogue order"
    return sorted(ids, key=lambda i: blake2b(i.encode(), digest_size=8, key=key).digest())


def read_back(folder: Folder) -> Found:
    ids = Catalog.read(folder).item_ids
    found: Found = {}
    for block in Histories.stream(folder):
        for user, start, stop in zip(
            block.user_id, block.offsets[:-1], block.offsets[1:], strict=True
        ):
            assert user not in found, "a user lies in one shard only"
            span = slice(start, stop)
            found[user] = [
                (ids[i], int(t), int(s))
                for i, t, s in zip(
                    block.item_index[span], block.timestamp[span], block.split[span], strict=True
                )
            ]
    return found


CASES = {
    "plain": {},
    "keep": {"duplicates": "keep"},
    "core": {"min_user_events": 8, "min_item_events": 9},
    "items only": {"min_item_events": 12},
    "users only": {"min_user_events": 20, "duplicates": "keep"},
    "input": {"order": "input"},
    "temporal": {"split": "temporal", "min_user_events": 3, "min_item_events": 3},
    "temporal shares": {"split": "temporal", "validation_share": 0.25, "test_share": 0.05},
}


@pytest.mark.parametrize(
    ("case", "kind"),
    [(case, kind) for kind in ("times", "pos") for case in CASES]
    + [("plain", "fractions"), ("temporal", "fractions")],
)
def test_stage_equals_the_slow_twin(ray_cluster, tmp_path, write_log, case, kind):
    rows = random_rows(7, kind=kind)
    config = SequencesConfig(**CASES[case], num_shards=3)
    out = Folder.at(tmp_path / "out")
    summary = build_sequences(config, write_log(rows, files=3, group=400), out, seed=0)
    expected = slow_twin(rows, config)
    found = read_back(out)
    assert found == expected
    catalog = Catalog.read(out)
    train = Counter(i for h in expected.values() for i, _, s in h if s == Split.TRAIN)
    assert catalog.item_ids == in_hash_order({i for h in expected.values() for i, _, _ in h})
    assert catalog.train_count.tolist() == [train[i] for i in catalog.item_ids]
    events = [e for h in expected.values() for e in h]
    assert summary["num_users"] == len(expected)
    assert summary["num_events"] == len(events)
    assert summary["events"] == {
        p.name.lower(): [e[2] for e in events].count(p) for p in Split if p != Split.GIVEN
    }
    assert summary["users_without_training"] == sum(
        all(e[2] != Split.TRAIN for e in h) for h in expected.values()
    )
    assert summary["cold_items"] == sum(train[i] == 0 for i in catalog.item_ids)
    assert summary == out.read_json("summary.json")
    whole = Histories.read(out)
    assert set(whole.item_index.tolist()) == set(range(catalog.num_items))
    assert whole.offsets[-1] == len(whole.item_index)
    for name in ("validation", "test"):
        targets = whole.targets(Split[name.upper()])
        assert summary["targets"][name]["count"] == len(targets.row)
        cold = (catalog.train_count[targets.target] == 0).sum()
        summary["targets_of_cold_items"] -= int(cold)
    assert summary["targets_of_cold_items"] == 0
    if config.min_item_events > 1:
        assert summary["k_core"]["rounds"] >= 2


def test_shards_hold_sorted_users_at_most_as_many_as_asked(ray_cluster, tmp_path, write_log):
    out = Folder.at(tmp_path / "out")
    config = SequencesConfig(num_shards=5)
    summary = build_sequences(config, write_log(random_rows(1)), out, seed=0)
    blocks = list(Histories.stream(out))
    assert len(blocks) == summary["num_shards"] == 5
    for block in blocks:
        assert block.user_id == sorted(block.user_id)


def test_ties_are_counted_by_hand(ray_cluster, tmp_path, write_log):
    rows = [
        # Test: 2 of 2 tied. Validation is in the same run of two.
        *[("a", f"i{n}", t) for n, t in enumerate([1, 2, 3, 3])],
        # Nothing tied at the end.
        *[("b", f"i{n}", t) for n, t in enumerate([1, 1, 2, 3])],
        # All three in one run.
        *[("c", f"i{n}", 9) for n in range(3)],
        # Two events within a second, which differ by a quarter of it.
        *[("e", f"i{n}", t) for n, t in enumerate([1, 5.25, 5.5])],
        # Too short to have targets.
        *[("d", f"i{n}", 4) for n in range(2)],
    ]
    out = Folder.at(tmp_path / "out")
    summary = build_sequences(SequencesConfig(), write_log(rows), out, seed=0)
    share = round((1 / 2 + 0 + 2 / 3 + 0) / 4, 6)
    expected = {"count": 4, "tied": 2, "tied_share": 0.5, "decided_by_tie": share}
    assert summary["targets"]["test"] == expected
    assert summary["targets"]["validation"] == expected
    assert summary["users_only_training"] == 1
    assert summary["history_length"]["after"] == {
        "min": 2.0, "p25": 3.0, "p50": 3.0, "p75": 4.0, "p90": 4.0, "p99": 4.0, "max": 4.0,
        "mean": 3.2,
    }  # fmt: skip


def test_places_that_contradict_the_times_are_warned_of(ray_cluster, tmp_path, write_log):
    slots = [
        ("u", "a", 1, 3),
        ("u", "b", 2, 1),
        ("u", "c", 3, 2),
        ("v", "a", 9, 0),
        ("v", "b", 9, 1),
    ]
    summary = build_sequences(
        SequencesConfig(), write_log(slots), Folder.at(tmp_path / "out"), seed=0
    )
    [sentence] = summary["warnings"]
    assert "1 of 3 events are older than the event before them" in sentence
    assert "`logs.columns.pos: null`" in sentence
    plain = write_log([row[:3] for row in slots], name="plain")
    again = build_sequences(SequencesConfig(), plain, Folder.at(tmp_path / "again"), seed=0)
    assert not again["warnings"]


def test_k_core_cascades_to_a_fixpoint(ray_cluster, tmp_path, write_log):
    # Item i0 has one event; without it user c0 has one; without c0 item i1 has one; ... to i6,
    # which then has only an event of user a. The core is {a, b} x {p, q}.
    chain = [(f"c{n}", f"i{m}") for n in range(6) for m in (n, n + 1)]
    pairs = [*chain, ("a", "i6"), *((u, i) for u in "ab" for i in "pq")]
    rows = [(user, item, time) for time, (user, item) in enumerate(pairs)]
    out = Folder.at(tmp_path / "out")
    config = SequencesConfig(min_user_events=2, min_item_events=2)
    summary = build_sequences(config, write_log(rows), out, seed=0)
    assert sorted(Catalog.read(out).item_ids) == ["p", "q"]
    assert sorted(read_back(out)) == ["a", "b"]
    assert summary["k_core"] == {
        "min_user_events": 2, "min_item_events": 2, "rounds": 8, "events_removed": 13,
    }  # fmt: skip
    assert summary["num_items_in"] == 9
    assert summary["num_events_in"] == 17


def test_catalogue_joins_what_is_known(ray_cluster, tmp_path, write_log):
    items = pa.table(
        {
            "item_id": ["b", "unused", "a", "b", None],
            "title": [None, "Unused", "A", "second b", "no id"],
            "brand": ["bb", "uu", "aa", "other", "nn"],
        }
    )
    rows = [("u", item, t) for t, item in enumerate(["c", "b", "a", "b"])]
    out = Folder.at(tmp_path / "out")
    summary = build_sequences(SequencesConfig(), write_log(rows, items=items), out, seed=0)
    rows = {row["item_id"]: row for row in out.read_table("catalog.parquet").to_pylist()}
    assert list(rows) == in_hash_order("abc")
    assert rows["a"] == {"item_id": "a", "title": "A", "brand": "aa", "train_count": 0}
    assert rows["b"] == {"item_id": "b", "title": None, "brand": "bb", "train_count": 1}
    assert rows["c"] == {"item_id": "c", "title": None, "brand": None, "train_count": 1}
    catalog = Catalog.read(out)
    assert dict(zip(catalog.item_ids, catalog.titles, strict=True)) == {
        "a": "A",
        "b": "b",
        "c": "c",
    }
    assert summary["items_not_described"] == 1
    assert summary["items_described_twice"] == 1
    assert summary["items_described_without_events"] == 1
    assert summary["cold_items"] == 1


def test_without_an_item_table_titles_are_null(ray_cluster, tmp_path, write_log):
    out = Folder.at(tmp_path / "out")
    build_sequences(SequencesConfig(), write_log([("u", "x", 1)]), out, seed=0)
    found = out.read_table("catalog.parquet").to_pydict()
    assert found == {"item_id": ["x"], "title": [None], "train_count": [1]}


def test_lifelong_user_is_one_history(ray_cluster, tmp_path, write_log):
    rows = [("old", f"i{n % 997}", 5 * n) for n in range(20_000)]
    rows += [("new", "i1", 3), ("new", "i2", 4)]
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    out = Folder.at(tmp_path / "out")
    log = write_log(rows, order=order, files=4, group=3_000)
    build_sequences(SequencesConfig(num_shards=2), log, out, seed=0)
    history = read_back(out)["old"]
    assert [item for item, _, _ in history] == [row[1] for row in rows[:20_000]]


def test_one_user_log_works(ray_cluster, tmp_path, write_log):
    rows = [("only", item, t) for t, item in enumerate("abcd")]
    out = Folder.at(tmp_path / "out")
    summary = build_sequences(SequencesConfig(num_shards=4), write_log(rows), out, seed=0)
    assert summary["num_users"] == summary["num_shards"] == 1
    assert read_back(out)["only"] == [("a", 0, 0), ("b", 1, 0), ("c", 2, 1), ("d", 3, 2)]


def refused(config: dict[str, Any], log: Folder, out: Folder) -> str:
    with pytest.raises(DataError) as caught:
        build_sequences(SequencesConfig(**config), log, out, seed=0)
    return str(caught.value)


def test_bad_logs_and_wishes_are_refused_with_the_remedy(ray_cluster, tmp_path, write_log):
    out = Folder.at(tmp_path / "out")
    message = refused({}, write_log([], name="empty"), out)
    assert message.startswith("`logs` must hold at least one event; got none in 1 files.")
    assert "at least one event" in refused({}, Folder.at(tmp_path / "nowhere"), out)

    timed = write_log([("u", f"i{n}", n) for n in range(9)], name="timed")
    message = refused({"min_user_events": 4, "min_item_events": 3}, timed, out)
    assert "`sequences.min_user_events` and `sequences.min_item_events`" in message
    assert message.endswith("Lower them.")
    assert "pos" in refused({"order": "pos"}, timed, out)
    # Ten per cent of nine events at either end cannot be cut out of one timestamp.
    coarse = write_log([("u", f"i{n}", n // 8) for n in range(16)], name="coarse")
    assert "must leave events in each part" in refused({"split": "temporal"}, coarse, out)

    partly = write_log([("u", "a", 1, 0), ("u", "b", 2, None)], name="partly")
    message = refused({}, partly, out)
    assert "got 1 of 2 events without" in message
    summary = build_sequences(SequencesConfig(order="timestamp"), partly, out, seed=0)
    assert summary["order"] == "timestamp"

    for rows, why in (
        ([("u", f"i{n}", 5) for n in range(9)], "all timestamps of the log are equal"),
        ([("u", f"i{n}", n, n) for n in range(9)], "each timestamp of the log is the event's"),
    ):
        log = write_log(rows, name=why[:3])
        assert why in refused({"ties": "shuffle"}, log, out)
        assert why in refused({"split": "temporal"}, log, out)


def test_bad_item_tables_and_torn_files_are_refused(ray_cluster, tmp_path, write_log):
    out, rows = Folder.at(tmp_path / "out"), [("u", "a", 1), ("u", "b", 2)]
    nameless = write_log(rows, name="nameless", items=pa.table({"asin": ["a"]}))
    assert "must have the column item_id" in refused({}, nameless, out)
    counted = pa.table({"item_id": ["a"], "train_count": [3]})
    assert "train_count" in refused({}, write_log(rows, name="counted", items=counted), out)

    short = Folder.at(tmp_path / "short")
    short.child("interactions").write_table("x.parquet", pa.table({"user_id": ["u"]}))
    assert "must have the columns" in refused({}, short, out)
    short.child("interactions").write_bytes("x.parquet", b"PAR1 torn")
    with pytest.raises(ArtifactError, match="must be a whole Parquet file"):
        build_sequences(SequencesConfig(), short, out, seed=0)


def test_an_error_inside_a_task_reaches_the_caller_as_it_is(ray_cluster, tmp_path, write_log):
    log = write_log([("u", "a", 1), ("u", "b", 2)])
    in_the_way = tmp_path / "out"
    in_the_way.mkdir()
    (in_the_way / "histories").mkdir()
    (in_the_way / "histories" / "shard-00000.parquet").mkdir()  # a folder where the shard goes
    with pytest.raises(ArtifactError) as caught:
        build_sequences(SequencesConfig(), log, Folder.at(in_the_way), seed=0)
    assert "Traceback" not in str(caught.value)
    assert "could not be written" in str(caught.value)


def test_repeats_in_a_log_without_times_are_no_duplicates(ray_cluster, tmp_path, write_log):
    rows = [("u", item, 7) for item in "aabca"]
    out = Folder.at(tmp_path / "out")
    summary = build_sequences(SequencesConfig(duplicates="drop"), write_log(rows), out, seed=0)
    assert [item for item, _, _ in read_back(out)["u"]] == list("aabca")
    assert summary["times"] == "constant"


def test_many_chunks_give_what_one_gives(ray_cluster, tmp_path, write_log, monkeypatch):
    from itemese.sequences import chunks

    rows = random_rows(3)
    config = SequencesConfig(min_user_events=5, min_item_events=5, num_shards=2)
    one = build_sequences(config, write_log(rows, name="one"), Folder.at(tmp_path / "a"), seed=0)
    monkeypatch.setattr(chunks, "_CHUNK_ROWS", 100)
    monkeypatch.setattr(stage, "_SHARD_EVENTS", 400)
    log = write_log(rows, name="many", files=4, group=50)
    assert len(chunks.plan_chunks(log.child("interactions"))) >= 20
    config = config.model_copy(update={"num_shards": None})
    many = build_sequences(config, log, Folder.at(tmp_path / "b"), seed=0)
    assert many["num_shards"] == 8
    assert {**one, "num_shards": 8} == many
    assert read_back(Folder.at(tmp_path / "a")) == read_back(Folder.at(tmp_path / "b"))
