"""Users and fields of a small log, by hand; nothing but training rows enters a vocabulary."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.core.fields import Fields
from itemese.core.schema import Histories, Request, Split
from itemese.core.users import Users
from itemese.features.config import FeaturesConfig
from itemese.features.counting import guess_kind
from itemese.features.stage import build_fields, build_users
from itemese.layers.fields import pad_fields

TRAIN, TEST = int(Split.TRAIN), int(Split.TEST)

# By shard: user, and for each event item, split, device, price paid.
ANN = [(0, TRAIN, "tv", 1.0), (1, TRAIN, "phone", 3.0), (2, TEST, "watch", 99.0)]
BOB = [(1, TRAIN, "tv", None), (0, TRAIN, None, 5.0), (1, TEST, "tv", 7.0)]
SHARDS = {
    "shard-00000.parquet": {"ann": ANN, "bob": BOB},
    "shard-00001.parquet": {"cy": [(2, TEST, "radio", 2.0)]},
}
CONFIG = FeaturesConfig(
    user=["city", "age"],
    item={"brand": "categorical", "tags": "list"},
    event=["paid"],
    context=["device"],
)


def write_sequences(folder: Folder, shards: dict[str, Any] = SHARDS) -> Folder:
    for name, users in shards.items():
        rows = {n: [[e[p] for e in h] for h in users.values()] for p, n in enumerate("isdp")}
        times = [list(range(len(events))) for events in users.values()]
        table = pa.table(
            {
                "user_id": pa.array(list(users)),
                "item_index": pa.array(rows["i"], pa.list_(pa.int32())),
                "timestamp": pa.array(times, pa.list_(pa.int64())),
                "split": pa.array(rows["s"], pa.list_(pa.int8())),
                "device": pa.array(rows["d"], pa.list_(pa.string())),
                "paid": pa.array(rows["p"], pa.list_(pa.float64())),
            }
        )
        folder.child("histories").write_table(name, table)
    items = {
        "item_id": ["a", "b", "c"],
        "title": ["A", "B", "C"],
        "train_count": [2, 2, 0],
        "brand": ["x", None, "only cold"],
        "tags": [["t", "u", "t"], [], ["cold"]],
    }
    folder.write_table("catalog.parquet", pa.table(items))
    return folder


def write_logs(folder: Folder) -> Folder:
    users = {
        "user_id": ["zoe", "cy", "ann", "ann"],
        "city": ["paris", "oslo", "rome", "second row"],
        "age": [50.0, 90.0, 20.5, 1.0],
    }
    folder.write_table("users.parquet", pa.table(users))
    return folder


def build(
    root: Path, config: FeaturesConfig = CONFIG, shards: dict[str, Any] = SHARDS
) -> tuple[Folder, Folder, dict[str, Any]]:
    sequences = write_sequences(Folder.at(root / "sequences"), shards)
    logs = write_logs(Folder.at(root / "logs"))
    users, fields = Folder.at(root / "users"), Folder.at(root / "fields")
    build_users(sequences, logs, users)
    return sequences, fields, build_fields(config, sequences, users, fields)


def test_users_are_those_with_histories_and_the_unknown_one(tmp_path: Path) -> None:
    sequences = write_sequences(Folder.at(tmp_path / "sequences"))
    folder = Folder.at(tmp_path / "users")
    counts = build_users(sequences, write_logs(Folder.at(tmp_path / "logs")), folder)
    assert counts == {"num_users": 3, "users_without_training": 1, "users_not_described": 1}
    users = Users.read(folder)
    assert [users.row_of(u) for u in ("ann", "bob", "cy", "zoe", "")] == [1, 2, 3, 0, 0]
    assert users.train_count.tolist() == [2, 2, 0]
    assert users.describe("ann") == {"city": "rome", "age": 20.5}
    assert users.describe("bob") == {"city": None, "age": None}
    assert users.describe("zoe") == {}
    bare = build_users(sequences, Folder.at(tmp_path / "nothing"), Folder.at(tmp_path / "bare"))
    assert bare["users_not_described"] == 3
    assert Users.read(Folder.at(tmp_path / "bare")).table.column_names == ["user_id", "train_count"]


def test_fields_by_hand(ray_cluster: str, tmp_path: Path) -> None:
    sequences, folder, counts = build(tmp_path)
    fields = Fields.read(folder)
    fields.validate(3)
    assert counts["context.device"] == {"kind": "categorical", "size": 3, "remainder": 0.0}
    assert counts["event.paid"]["kind"] == counts["user.age"]["kind"] == "number"
    # Training rows: ann and bob, items a and b, the first two events of ann and bob.
    values = {key: found.to_pylist() for key, found in fields.encoder.values.items()}
    assert values == {
        "item.brand": ["x"],
        "item.tags": ["t", "u"],
        "user.city": ["rome"],
        "context.device": ["tv", "phone"],
    }
    assert fields.items["item.brand"].tolist() == [1, 0, 0], "what only cold items have is unknown"
    assert fields.items["item.tags"].tolist() == [[1, 2, 1], [-1, -1, -1], [0, -1, -1]]
    paid = next(f for f in fields.encoder.fields if f.name == "paid")
    assert (paid.mean, paid.deviation) == pytest.approx((3.0, np.std([1.0, 3.0, 5.0])))
    age = next(f for f in fields.encoder.fields if f.name == "age")
    assert (age.mean, age.deviation) == (20.5, 1.0), "one training user has an age"

    block = Histories.read(sequences, fields=folder)
    assert block.user_fields["user.city"].tolist() == [1, 0, 0]
    assert block.user_fields["user.age"].tolist() == [[0, 0], [0, 1], [69.5, 0]]
    assert block.event_fields["context.device"].tolist() == [1, 2, 0, 1, 0, 1, 0]
    assert block.event_fields["event.paid"][:, 1].tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_requests_hold_what_is_known_when_they_are_made(ray_cluster: str, tmp_path: Path) -> None:
    sequences, folder, _ = build(tmp_path)
    block = Histories.read(sequences, fields=folder)
    asked = block.request(1, 2)  # bob's test event, from a tv
    assert asked.fields["user.city"] == 0
    assert asked.fields["context.device"].tolist() == [1, 0, 1]
    assert len(asked.fields["event.paid"]) == 2, "what was paid for the target is not known yet"
    training = block.only(Split.TRAIN).request(0)
    assert training.fields["context.device"].tolist() == [1, 2, 0], "the next context is unknown"
    newest = block.request(0, 2, longest=1)
    assert newest.fields["context.device"].tolist() == [2, 0]

    bare = Request(asked.history[:1], asked.timestamp[:1])
    batch = pad_fields([asked, bare])
    assert batch["fields/user.city"].tolist() == [0, 0]
    assert batch["fields/user.age"].tolist() == [[0, 1], [0, 1]]
    assert batch["fields/context.device"].tolist() == [[1, 0, 1], [0, 0, 0]]
    assert batch["fields/event.paid"].shape == (2, 2, 2)
    assert batch["fields/event.paid"][1].tolist() == [[0, 1], [0, 1]]
    assert pad_fields([bare]) == {}


def test_fields_follow_their_users_and_events(ray_cluster: str, tmp_path: Path) -> None:
    sequences, folder, _ = build(tmp_path)
    block = Histories.read(sequences, fields=folder)
    picked = block.take(np.array([2, 0]))
    assert picked.user_fields["user.age"][:, 0].tolist() == [69.5, 0]
    assert picked.event_fields["context.device"].tolist() == [0, 1, 2, 0]
    joined = Histories.concat(list(Histories.stream(sequences, fields=folder)))
    assert joined.user_id == block.user_id
    for key, rows in {**block.event_fields, **block.user_fields}.items():
        np.testing.assert_array_equal({**joined.event_fields, **joined.user_fields}[key], rows)
    kept = block.only(Split.TEST)
    assert kept.user_fields["user.city"].tolist() == [1, 0, 0]
    assert kept.event_fields["context.device"].tolist() == [0, 1, 0]


def test_values_of_validation_and_test_change_no_vocabulary(
    ray_cluster: str, tmp_path: Path
) -> None:
    _, plain, _ = build(tmp_path / "plain")
    planted = {
        "shard-00000.parquet": {"ann": [*ANN[:2], (0, TEST, "planted", -1e6)], "bob": BOB},
        "shard-00001.parquet": {"cy": [(0, TEST, "planted", 1e6)] * 5},
    }
    sequences, folder, _ = build(tmp_path / "planted", shards=planted)
    one, other = Fields.read(plain), Fields.read(folder)
    assert one.encoder.fields == other.encoder.fields
    for key, values in one.encoder.values.items():
        assert values.equals(other.encoder.values[key])
    block = Histories.read(sequences, fields=folder)
    assert block.event_fields["context.device"][2] == 0, "planted is unknown"


def test_the_cap_keeps_the_most_frequent_values_and_states_the_rest(tmp_path: Path) -> None:
    folder = write_sequences(Folder.at(tmp_path / "sequences"))
    brands = ["b"] * 3 + ["a"] * 3 + ["c"] * 2 + ["d"]
    items = {"item_id": [str(n) for n in range(9)], "train_count": [1] * 9, "brand": brands}
    folder.write_table("catalog.parquet", pa.table(items))
    users = Folder.at(tmp_path / "users")
    build_users(folder, Folder.at(tmp_path / "logs"), users)
    config = FeaturesConfig(item=["brand"], max_values=2)
    counts = build_fields(config, folder, users, Folder.at(tmp_path / "out"))
    assert counts == {"item.brand": {"kind": "categorical", "size": 3, "remainder": 3 / 9}}
    found = Fields.read(Folder.at(tmp_path / "out"))
    assert found.items["item.brand"].tolist() == [2, 2, 2, 1, 1, 1, 0, 0, 0]


def test_a_field_of_a_million_values(tmp_path: Path) -> None:
    folder, size = write_sequences(Folder.at(tmp_path / "sequences")), 1_200_000
    ids = pa.array(np.arange(size)).cast(pa.string())
    table = {"item_id": ids, "train_count": np.ones(size, int), "seller": ids}
    folder.write_table("catalog.parquet", pa.table(table))
    users = Folder.at(tmp_path / "users")
    build_users(folder, Folder.at(tmp_path / "logs"), users)
    config = FeaturesConfig(item={"seller": "categorical"})
    counts = build_fields(config, folder, users, Folder.at(tmp_path / "out"))
    assert counts["item.seller"]["size"] == 1_000_001
    assert counts["item.seller"]["remainder"] == pytest.approx(1 / 6)
    index = Fields.read(Folder.at(tmp_path / "out")).items["item.seller"]
    assert (np.bincount(index)[1:] == 1).all()
    assert (index == 0).sum() == 200_000


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([[1], [2]], "list"),
        ([True, None], "categorical"),
        ([1, 2, 2], "categorical"),
        (list(range(101)), "number"),
        ([0.5, 1.0], "number"),
        (["red", "dark blue"], "categorical"),
        (["a film about two friends at sea", "a second one of the kind"], "text"),
    ],
)
def test_kinds_are_guessed_from_types_and_values(values: list[Any], kind: str) -> None:
    assert guess_kind(pa.array(values)) == kind


def test_columns_that_are_not_there_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`features\.item` .* got 'brnd'. Did you mean 'brand'"):
        build(tmp_path / "a", FeaturesConfig(item=["brnd"]))
    with pytest.raises(DataError, match=r"`features\.event`.* Add it to `sequences\.columns`"):
        build(tmp_path / "b", FeaturesConfig(event=["pace"]))
    with pytest.raises(DataError, match=r"lists of column 'tags' as kind list or text; got number"):
        build(tmp_path / "c", FeaturesConfig(item={"tags": "number"}))
    with pytest.raises(ConfigError, match=r"`features\.user"):
        FeaturesConfig.parse({"user": {"age": "int"}}, where="features")


def test_users_of_other_histories_are_refused(tmp_path: Path) -> None:
    shard = "shard-00000.parquet"
    sequences = write_sequences(Folder.at(tmp_path / "one"), {shard: {"ann": ANN}})
    other = write_sequences(Folder.at(tmp_path / "two"), {shard: {"eve": ANN}})
    users = Folder.at(tmp_path / "users")
    build_users(other, write_logs(Folder.at(tmp_path / "logs")), users)
    with pytest.raises(DataError, match="users of the histories in their order"):
        build_fields(CONFIG, sequences, users, Folder.at(tmp_path / "out"))
