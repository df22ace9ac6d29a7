"""Texts of users: training events up to a cutoff, and nothing that comes after."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.core.schema import Histories, Split
from itemese.core.texts import Texts
from itemese.core.users import Users
from itemese.knowledge.cache import Parts, Written
from itemese.knowledge.config import KnowledgeConfig
from itemese.knowledge.stage import build_knowledge

TRAIN, VALIDATION, TEST = (int(split) for split in list(Split)[:3])
ITEMS = ["lamp", "chair", "table", None]

# By user: item, time, split, rating.
EVENTS = {
    "ann": [(0, 10, TRAIN, 5), (1, 20, TRAIN, 1), (2, 30, VALIDATION, 5), (0, 40, TEST, 5)],
    "bob": [(3, 15, TRAIN, 4), (2, 25, TRAIN, np.nan)],
    "cy": [(1, 99, TEST, 3)],
}
CONFIG = KnowledgeConfig(texts=(), users={"columns": ["city"]})


def write(root: Path, events: dict[str, list[Any]] = EVENTS) -> tuple[Folder, Folder]:
    """Write a sequences artifact in two shards, and the users artifact."""
    sequences, users = Folder.at(root / "sequences"), Folder.at(root / "users")
    names = list(events)
    for shard, part in enumerate((names[:2], names[2:])):
        rows = [event for name in part for event in events[name]]
        item, time, split, rating = (np.array([row[n] for row in rows]) for n in range(4))
        block = Histories(
            part,
            np.cumsum([0, *(len(events[name]) for name in part)]),
            item.astype(np.int32),
            time.astype(np.int64),
            split.astype(np.int8),
            rating=rating.astype(np.float32),
        )
        home = sequences.child("histories")
        home.write_table(f"shard-{shard:05d}.parquet", block.to_table())
    catalog = {"item_id": [f"i{n}" for n in range(4)], "title": ITEMS}
    sequences.write_table("catalog.parquet", pa.table(catalog))
    counts = [sum(event[2] == TRAIN for event in events[name]) for name in names]
    table = {"user_id": names, "train_count": counts, "city": ["rome", None, None][: len(names)]}
    Users(pa.table(table)).write(users)
    return sequences, users


def build(root: Path, config: KnowledgeConfig = CONFIG, events: Any = EVENTS, **more: Any) -> Any:
    sequences, users = write(root, events)
    out, cache = Folder.at(root / "out"), Folder.at(root / "cache")
    counts = build_knowledge(config, sequences, users, cache, out, **more)
    return counts, Texts.read_all(out)


class Model:
    """Answers with the last line but one of a prompt, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(
        self, config: KnowledgeConfig, prompts: list[str], parts: Parts
    ) -> Iterable[dict[str, Written]]:
        self.asked += prompts
        found = {prompt: Written(prompt.splitlines()[-2]) for prompt in prompts}
        parts.add(found)
        yield found


def test_a_template_names_what_a_user_had_in_training(tmp_path: Path) -> None:
    counts, texts = build(tmp_path)
    assert set(texts) == {"user"}
    users = texts["user"]
    assert users.key == ["ann", "bob", "cy"]
    wanted = ["likes lamp, chair. city rome", "likes table", None]
    assert users.text == {"preference": wanted}
    assert users.cutoff == counts["user"]["cutoff"] == 25
    assert counts["user"]["num"] == 3
    assert counts["user"]["empty"] == {"preference": 1}


def test_a_model_is_shown_the_newest_events_with_their_ratings(tmp_path: Path) -> None:
    model = Model()
    config = KnowledgeConfig(
        writer="model", model="some/model", texts=(), users={"max_events": 1, "columns": ["city"]}
    )
    counts, texts = build(tmp_path, config, answers=model)
    assert texts["user"].text["preference"] == [
        "- title: chair; rating: 1",
        "- title: table",
        None,
    ]
    assert model.asked[0].startswith("city: rome")
    assert counts["user"]["asked"] == {"preference": 2}
    again = Model()
    counts, _ = build(tmp_path, config, answers=again)
    assert not again.asked
    assert counts["user"]["asked"] == {"preference": 0}


def test_no_text_tells_of_an_event_after_the_cutoff(tmp_path: Path) -> None:
    config = KnowledgeConfig(texts=(), users={"cutoff": 15})
    counts, texts = build(tmp_path, config)
    assert texts["user"].text["preference"] == ["likes lamp", None, None]
    assert texts["user"].cutoff == counts["user"]["cutoff"] == 15
    assert config.digest() != KnowledgeConfig(texts=(), users={"cutoff": 16}).digest()


@pytest.mark.parametrize("cutoff", [None, 25])
def test_planted_later_events_change_nothing(tmp_path: Path, cutoff: int | None) -> None:
    config = KnowledgeConfig(texts=(), users={"cutoff": cutoff})
    _, plain = build(tmp_path / "plain", config)
    planted = {name: [*events] for name, events in EVENTS.items()}
    planted["bob"] += [(0, 26, VALIDATION, 1), (1, 27, TEST, 1)]
    planted["cy"] = [(0, 5, TEST, 5), *EVENTS["cy"]]
    if cutoff:
        planted["ann"].insert(2, (2, 26, TRAIN, 5))  # a training event, but a later one
    _, found = build(tmp_path / "planted", config, planted)
    assert found["user"] == plain["user"]


def test_items_and_users_share_a_run(tmp_path: Path) -> None:
    config = KnowledgeConfig(texts=("intention",), columns=("title",), users={})
    counts, texts = build(tmp_path, config)
    assert set(texts) == {"item", "user"}
    assert texts["item"].text["intention"] == [*(f"looking for {t}" for t in ITEMS[:3]), None]
    assert texts["item"].cutoff is None
    assert set(counts["templates"]) == {"intention.offline.jinja", "preference.offline.jinja"}
    texts["user"].validate(["ann", "bob", "cy"])
    with pytest.raises(DataError, match="3 of others"):
        texts["user"].validate(["ann", "cy", "bob"])


def test_nothing_to_write_or_an_unknown_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`knowledge"):
        KnowledgeConfig.parse({"texts": []}, where="knowledge")
    with pytest.raises(ConfigError, match=r"known templates; got 'preferences'"):
        build(tmp_path, KnowledgeConfig(texts=(), users={"texts": ["preferences"]}))
