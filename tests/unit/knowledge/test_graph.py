"""Graphs of training events, by hand; nothing later enters them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError
from itemese.core.graph import Edges, Graph
from itemese.core.schema import Histories, Split
from itemese.knowledge.config import GraphConfig
from itemese.knowledge.graph import HAD, NEAR, build_graph

TRAIN, VALIDATION, TEST = (int(split) for split in list(Split)[:3])
# By user, (item, split); times are places in the whole log.
EVENTS = [
    [(0, TRAIN), (1, TRAIN), (0, TRAIN), (2, VALIDATION), (3, TEST)],
    [(1, TRAIN), (2, TRAIN)],
    [(3, TEST)],
]


def write(root: Path, users: list[list[tuple[int, int]]], num_shards: int = 1) -> Folder:
    folder = Folder.at(root)
    for shard, rows in enumerate(np.array_split(np.arange(len(users)), num_shards)):
        events = [event for row in rows for event in users[row]]
        item, split = (np.array([event[n] for event in events]) for n in (0, 1))
        block = Histories(
            [f"u{row}" for row in rows],
            np.cumsum([0, *(len(users[row]) for row in rows)]),
            item.astype(np.int32),
            np.arange(len(events)) + 100 * shard,
            split.astype(np.int8),
        )
        folder.child("histories").write_table(f"shard-{shard:05d}.parquet", block.to_table())
    folder.write_table("catalog.parquet", pa.table({"item_id": ["a", "b", "c", "d"]}))
    return folder


def pairs(edges: Edges) -> dict[tuple[int, int], float]:
    columns = (edges.source.tolist(), edges.target.tolist(), edges.weight.tolist())
    return {(s, t): w for s, t, w in zip(*columns, strict=True)}


def test_edges_by_hand(tmp_path: Path) -> None:
    out = Folder.at(tmp_path / "out")
    config = GraphConfig(window=2, decay=0.5)
    counts = build_graph(config, write(tmp_path / "log", EVENTS), out)
    graph = Graph.read(out)
    graph.validate()
    assert graph.nodes == {"user": 4, "item": 4}, "row 0 is the unknown user"
    assert pairs(graph.edges[HAD]) == {(1, 0): 2, (1, 1): 1, (2, 1): 1, (2, 2): 1}
    # 0-1 and 1-0 of user 0 at distance 1, 1-2 of user 1; 0-0 at distance 2 is no pair of items.
    assert pairs(graph.edges[NEAR]) == {(0, 1): 2, (1, 0): 2, (1, 2): 1, (2, 1): 1}
    assert graph.cutoff == counts["cutoff"] == 6
    assert counts["edges"] == {"had": 4, "near": 4}


def test_an_item_keeps_its_heaviest_edges(tmp_path: Path) -> None:
    users = [[(0, TRAIN), (1, TRAIN)]] * 3 + [[(0, TRAIN), (2, TRAIN)]] + [[(0, TRAIN), (3, TRAIN)]]
    out = Folder.at(tmp_path / "out")
    build_graph(GraphConfig(window=1, max_neighbors=2), write(tmp_path / "log", users), out)
    found = pairs(Graph.read(out).edges[NEAR])
    assert found == {(0, 1): 3, (0, 2): 1, (1, 0): 3, (2, 0): 1, (3, 0): 1}


def test_later_events_change_no_edge(tmp_path: Path) -> None:
    planted = [[*user] for user in EVENTS]
    planted[0][-1] = (2, TEST)
    planted[1] += [(0, VALIDATION), (3, TEST)]
    outs = [Folder.at(tmp_path / name) for name in ("plain", "planted")]
    for out, users in zip(outs, (EVENTS, planted), strict=True):
        build_graph(GraphConfig(), write(Folder.at(f"{out.uri}_log").uri, users), out)
    one, other = (out.read_bytes("graph.safetensors") for out in outs)
    assert one == other


@pytest.mark.ray
def test_shards_make_no_difference(ray_cluster: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    users = [[(int(i), TRAIN) for i in draw.integers(4, size=6)] for _ in range(20)]
    outs = []
    for shards in (1, 3):
        out = Folder.at(tmp_path / f"out{shards}")
        build_graph(GraphConfig(), write(tmp_path / f"log{shards}", users, shards), out)
        outs.append(Graph.read(out))
    for kind, edges in outs[0].edges.items():
        other = outs[1].edges[kind]
        assert torch.equal(edges.start, other.start)
        assert torch.equal(edges.target, other.target)
        torch.testing.assert_close(edges.weight, other.weight)


def edges(start: list[int], target: list[int], weight: list[float]) -> Edges:
    return Edges(torch.tensor(start), torch.tensor(target), torch.tensor(weight))


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (edges([0, 1], [0], [1.0]), "3 rising starts"),
        (edges([0, 2, 1], [0], [1.0]), "3 rising starts"),
        (edges([0, 1, 2], [0], [1.0]), "2 targets"),
        (edges([0, 1, 2], [0, 3], [1.0, 1.0]), "targets among the 3 nodes of type 'item'"),
        (edges([0, 1, 2], [0, 1], [1.0, 0.0]), "finite weights above 0"),
        (edges([0, 1, 2], [0, 1], [1.0, float("nan")]), "finite weights above 0"),
        (edges([0, 1, 2], [0, 1], [1.0]), "a weight for each edge"),
    ],
)
def test_bad_graphs_are_refused(made: Edges, fault: str) -> None:
    graph = Graph({"user": 2, "item": 3}, {("user", "had", "item"): made})
    with pytest.raises(DataError, match=fault):
        graph.validate()
