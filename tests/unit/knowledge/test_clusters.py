"""Clusters: alike items and users share a text, and a prompt says what a cluster has in common."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from itemese.core.artifacts import Folder
from itemese.core.clusters import Clusters
from itemese.core.errors import ConfigError
from itemese.core.schema import Histories, Split
from itemese.core.texts import Texts
from itemese.core.users import Users
from itemese.core.vectors import Embeddings
from itemese.knowledge.clusters import build_clusters, cluster
from itemese.knowledge.config import ClustersConfig, KnowledgeConfig
from itemese.knowledge.stage import build_knowledge
from itemese.pipeline.experiment import Experiment

TRAIN, GIVEN, TEST = int(Split.TRAIN), int(Split.GIVEN), int(Split.TEST)
TITLES = ["Alien", "Aliens", "Emma", "Persuasion"]
GENRES = [["Horror", "Sci-Fi"], ["Sci-Fi"], ["Romance"], ["Romance"]]
VECTORS = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)

# By user: item, time, split.
EVENTS = {
    "ann": [(0, 1, TRAIN), (1, 2, TRAIN), (2, 3, TRAIN), (3, 4, TRAIN)],
    "bob": [(0, 1, GIVEN), (2, 9, TEST)],
    "cy": [(2, 1, TRAIN), (3, 2, TRAIN), (1, 9, TEST)],
    "dot": [(3, 9, TEST)],
}


@pytest.fixture
def world(tmp_path: Path) -> tuple[Folder, Folder, Folder]:
    """Return sequences, users and clusters; two of items, two of users."""
    sequences, users = Folder.at(tmp_path / "sequences"), Folder.at(tmp_path / "users")
    rows = np.array([event for events in EVENTS.values() for event in events])
    offsets = np.cumsum([0, *map(len, EVENTS.values())])
    item, time, split = rows.T
    block = Histories(
        list(EVENTS), offsets, item.astype(np.int32), time.astype(np.int64), split.astype(np.int8)
    )
    sequences.child("histories").write_table("shard-00000.parquet", block.to_table())
    catalog = {"item_id": list("abcd"), "title": TITLES, "genres": GENRES}
    sequences.write_table("catalog.parquet", pa.table(catalog))
    table = {"user_id": list(EVENTS), "train_count": [4, 0, 2, 0], "city": ["rome"] * 3 + [None]}
    Users(pa.table(table)).write(users)
    vectors, means, out = (Folder.at(tmp_path / name) for name in ("items", "means", "clusters"))
    Embeddings("item", VECTORS, "drawn").write(vectors)
    people = np.array([[0, 0], [1, 0], [1, 0], [0, 1], [0, 0]], np.float32)
    known = np.array([False, True, True, True, False])
    Embeddings("user", people, "means", described=known).write(means)
    counts = build_clusters(ClustersConfig(items=2, users=2), vectors, means, out)
    assert counts == {
        "item": {"clusters": 2, "largest": 2},
        "user": {"clusters": 2, "largest": 2},
    }
    return sequences, users, out


def test_members_of_a_cluster_share_a_text(world: tuple[Folder, ...], tmp_path: Path) -> None:
    sequences, users, clusters = world
    config = KnowledgeConfig(
        texts=("factors",),
        domain="movies",
        columns=("title", "genres"),
        users={"texts": ["factor_taste"], "columns": ["city"], "item_columns": ["title"]},
        clusters={"items": 2, "users": 2},
    )
    out = Folder.at(tmp_path / "out")
    build_knowledge(config, sequences, users, Folder.at(tmp_path / "cache"), out, clusters=clusters)
    texts = Texts.read_all(out)
    items, people = texts["item"].text["factors"], texts["user"].text["factor_taste"]
    assert items[0] == items[1] != items[2] == items[3]
    assert "Sci-Fi 100%" in items[0]
    assert "Horror 50%" in items[0]
    assert "Alien" in items[0]
    assert people[0] == people[1] != people[2]
    assert people[3] is None, "nothing is known of dot"
    assert "city: rome 100%" in people[0]
    # Ann and Bob had Alien twice and Cy had none; Emma and Persuasion stand out for Cy.
    assert "Alien" in people[0]
    assert "Emma" in people[2]
    assert "Alien" not in people[2]
    assert texts["user"].shown_until == [4, None, 2, None]


def test_only_the_older_share_is_shown(world: tuple[Folder, ...], tmp_path: Path) -> None:
    sequences, users, _ = world
    config = KnowledgeConfig(texts=(), columns=("title",), users={"share": 0.5})
    out = Folder.at(tmp_path / "out")
    build_knowledge(config, sequences, users, Folder.at(tmp_path / "cache"), out)
    found = Texts.read(out, "user")
    wanted = ["likes Alien, Aliens", "likes Alien", "likes Emma", None]
    assert [text and text.partition(".")[0] for text in found.text["preference"]] == wanted
    assert found.shown_until == [2, None, 1, None]


def test_clusters_of_few_distinct_vectors_are_fewer() -> None:
    found = cluster("item", np.ones((5, 2), np.float32), None, 3)
    assert found.cluster.tolist() == [0] * 5
    assert found.typical[0].tolist() == [0, 1, 2, 3, 4, *[-1] * 5]
    nothing = cluster("user", np.ones((2, 2), np.float32), np.zeros(2, bool), 3)
    assert nothing.cluster.tolist() == [-1, -1]
    assert isinstance(nothing, Clusters)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`users` with `clusters.users`"):
        KnowledgeConfig.parse({"clusters": {"users": 2}}, where="knowledge")
    values = {
        "name": "x",
        "logs": {"source": "simulated"},
        "method": {"name": "popularity"},
        "knowledge": {"clusters": {"users": 4}, "users": {"share": 0.5}},
    }
    with pytest.raises(ConfigError, match=r"user_embeddings.share"):
        Experiment.parse(values)
    embeds = {
        "user_embeddings": {"share": 0.5},
        "embeddings": {"knowledge": {"texts": ["factors"]}},
    }
    with pytest.raises(ConfigError, match=r"leave one of them out"):
        Experiment.parse({**values, **embeds})
