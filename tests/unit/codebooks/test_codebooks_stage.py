"""The stage on disk, and the health report by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.codebooks import stage
from itemese.codebooks.base import Quantizer
from itemese.codebooks.collisions import with_suffix
from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.distributed import EncodeByRay
from itemese.codebooks.health.agreement import prefix_agreement
from itemese.codebooks.health.report import advice, health_report
from itemese.codebooks.kinds import QUANTIZERS
from itemese.codebooks.residual_kmeans import ResidualKMeans
from itemese.codebooks.stage import build_codebooks
from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.core.schema import Histories, Split
from itemese.core.vectors import Codes, Embeddings, SemanticIds

SMALL = CodebooksConfig(num_codebooks=2, codebook_size=4)


def inputs(root: Path, vectors: np.ndarray, num_items: int | None = None) -> tuple[Folder, Folder]:
    """Write an embeddings and a sequences artifact."""
    embeddings, sequences = Folder.at(root / "embeddings"), Folder.at(root / "sequences")
    Embeddings("item", vectors.astype(np.float32), "test").write(embeddings)
    ids = [f"i{n:04d}" for n in range(len(vectors) if num_items is None else num_items)]
    counts = np.arange(len(ids))
    catalog = pa.table({"item_id": ids, "title": ids, "train_count": counts})
    sequences.write_table("catalog.parquet", catalog)
    return embeddings, sequences


def vectors_of(num_items: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_items, 5))


def test_writes_ids_codebook_and_health(tmp_path: Path) -> None:
    vectors = vectors_of(60)
    folder = Folder.at(tmp_path / "out")
    counts = build_codebooks(SMALL, *inputs(tmp_path, vectors), folder, seed=1)
    ids = SemanticIds.read(folder)
    ids.validate(60)
    assert ids.code_length == 3
    assert folder.read_json("health.json") == counts
    assert counts["collision_rate_after"] == 0
    assert counts["code_sizes"] == list(ids.code_sizes)
    quantizer = ResidualKMeans.load(folder, SMALL)
    again = quantizer.encode(torch.tensor(vectors, dtype=torch.float32))
    assert again.tolist() == ids.codes[:, :2].tolist()


@pytest.mark.parametrize("kind", ["residual_kmeans", "rq_vae", "parallel_kmeans"])
def test_the_cluster_encodes_as_one_process_does(
    tmp_path: Path, kind: str, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CodebooksConfig(kind=kind, num_codebooks=2, codebook_size=4, rq_vae={"steps": 4})
    made = inputs(tmp_path, vectors_of(60))
    here = build_codebooks(config, *made, Folder.at(tmp_path / "here"), seed=1)
    calls = []

    def by_ray(embeddings: Folder) -> EncodeByRay:
        calls.append(embeddings)
        return EncodeByRay(embeddings, rows_at_once=7)

    monkeypatch.setattr(stage, "LARGE", 59)
    monkeypatch.setattr(stage, "EncodeByRay", by_ray)
    assert build_codebooks(config, *made, Folder.at(tmp_path / "there"), seed=1) == here
    one, other = (SemanticIds.read(Folder.at(tmp_path / n)).codes for n in ("here", "there"))
    assert calls
    assert one.tolist() == other.tolist()


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    made = inputs(tmp_path, vectors_of(60))
    outs = [Folder.at(tmp_path / name) for name in "abc"]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        build_codebooks(SMALL, *made, out, seed=seed)
    first, second, other = (out.read_bytes("codebook.safetensors") for out in outs)
    assert first == second != other


def test_embeddings_of_another_catalogue_are_refused(tmp_path: Path) -> None:
    made = inputs(tmp_path, vectors_of(60), num_items=61)
    with pytest.raises(DataError, match=r"must be \[61, dim\]"):
        build_codebooks(SMALL, *made, Folder.at(tmp_path / "out"), seed=1)


@pytest.mark.parametrize("num_items", [1, 3])
def test_fewer_items_than_codes_are_refused(tmp_path: Path, num_items: int) -> None:
    made = inputs(tmp_path, vectors_of(num_items))
    with pytest.raises(DataError, match="codebook_size` must be at most the number of items"):
        build_codebooks(SMALL, *made, Folder.at(tmp_path / "out"), seed=1)


def test_nan_vectors_are_refused(tmp_path: Path) -> None:
    vectors = vectors_of(20)
    vectors[3, 1] = np.nan
    with pytest.raises(DataError, match="first 3"):
        build_codebooks(SMALL, *inputs(tmp_path, vectors), Folder.at(tmp_path / "out"), seed=1)


@pytest.mark.parametrize(
    "values",
    [{"kind": "lfq"}, {"disambiguation": "hash"}, {"codebook_size": 1}, {"gate": "no"}],
)
def test_what_does_not_work_is_not_offered(values: dict) -> None:
    with pytest.raises(ConfigError, match=f"codebooks.{next(iter(values))}` must be"):
        CodebooksConfig.parse(values, where="codebooks")


class Rounding(Quantizer):
    """Stands in for a fitted quantizer: vectors of size 1, error known by hand."""

    layout = "residual"

    def fit(self, vectors: torch.Tensor, *, seed: int) -> None: ...
    def encode(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors.long()

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return codes[:, :1].float() + (codes[:, 1:2] * 0.5 if codes.shape[1] > 1 else 0)

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def restore(self, state: dict[str, torch.Tensor]) -> None: ...


def test_health_by_hand() -> None:
    config = CodebooksConfig(num_codebooks=2, codebook_size=4)
    rows = np.array([[0, 0], [0, 1], [2, 1], [2, 1]], dtype=np.int32)
    codes = Codes(rows, (4, 4), "residual", 0.5)
    targets = torch.tensor([[0.0], [0.5], [2.5], [3.0]])
    health = health_report(Rounding(config), targets, codes, with_suffix(codes, np.arange(4)))
    assert health["collision_rate_before"] == 0.5
    assert health["collision_rate_after"] == 0
    assert health["distinct_codes"] == 3
    assert health["largest_collision_group"] == 2
    first, second, suffix = health["levels"]
    # mean 1.5, variance sum 2.25 + 1 + 1 + 2.25 = 6.5; errors 0, .25, .25, 1 then 0, 0, 0, .25
    assert first["error"] == pytest.approx(1.5 / 6.5)
    assert second["error"] == pytest.approx(0.25 / 6.5)
    assert "error" not in suffix
    assert (first["used"], first["use"], first["size"]) == (2, 0.5, 4)
    assert first["entropy_bits"] == pytest.approx(1)
    assert first["perplexity"] == pytest.approx(2)
    assert second["entropy_bits"] == pytest.approx(0.25 * 2 + 0.75 * np.log2(4 / 3))
    assert [level["prefixes"] for level in health["levels"]] == [2, 3, 4]
    assert [level["mean_fan_out"] for level in health["levels"]] == [2, 1.5, 4 / 3]
    assert [level["max_fan_out"] for level in health["levels"]] == [2, 2, 2]


def test_the_last_error_is_that_of_the_codes_after_disambiguation() -> None:
    config = CodebooksConfig(num_codebooks=2, codebook_size=4)
    codes = Codes(np.array([[0, 0], [2, 1], [2, 1]], dtype=np.int32), (4, 4), "residual", 2 / 3)
    moved = SemanticIds(np.array([[0, 0], [2, 1], [2, 2]], dtype=np.int32), (4, 4))
    targets = torch.tensor([[0.0], [2.5], [2.5]])
    health = health_report(Rounding(config), targets, codes, moved)
    assert health["error"] == 0
    assert health["error_after"] == pytest.approx(0.25 / (6.25 * 2 / 3))
    assert health["collision_rate_after"] == 0


def healthy(**changes: object) -> dict:
    level = {"used": 95, "size": 100, "use": 0.95}
    return {"levels": [level], "collision_rate_after": 0.01, **changes}


def test_advice_by_hand() -> None:
    assert advice(healthy(), SMALL) is None
    collapsed = healthy(levels=[{"used": 94, "size": 100, "use": 0.94}])
    said = advice(collapsed, SMALL)
    assert said is not None
    assert "must use 95% of the first codebook; got 94 of 100 codes. Lower" in said
    assert "dead_code_threshold" in str(advice(collapsed, CodebooksConfig(kind="rq_vae")))
    shared = advice(healthy(collision_rate_after=0.011), SMALL)
    assert "got 1.1% with disambiguation: none. Set" in str(shared)


@pytest.mark.parametrize("gate", ["fail", "warn", "off"])
def test_the_gate(tmp_path: Path, caplog: pytest.LogCaptureFixture, gate: str) -> None:
    three = np.eye(5)[np.arange(40) % 3]  # 4 codes for 3 different vectors
    made, out = inputs(tmp_path, three), Folder.at(tmp_path / "out")
    config = SMALL.model_copy(update={"gate": gate})
    if gate == "fail":
        with pytest.raises(DataError, match=r"got 3 of 4 codes\. Lower"):
            build_codebooks(config, *made, out, seed=1)
        return
    counts = build_codebooks(config, *made, out, seed=1)
    assert "got 3 of 4 codes" in counts["gate"]["advice"]
    assert ("got 3 of 4 codes" in caplog.text) == (gate == "warn")


@pytest.mark.parametrize(
    ("way", "length", "predicted"), [("suffix", 3, None), ("reassign", 2, None), ("none", 3, 2)]
)
def test_ways_to_tell_items_apart(
    tmp_path: Path, way: str, length: int, predicted: int | None
) -> None:
    config = CodebooksConfig(num_codebooks=2, codebook_size=8, disambiguation=way)
    out = Folder.at(tmp_path / "out")
    counts = build_codebooks(config, *inputs(tmp_path, vectors_of(50)), out, seed=1)
    ids = SemanticIds.read(out)
    ids.validate(50)
    assert (ids.code_length, ids.num_predicted) == (length, predicted)
    assert counts["collision_rate_before"] > 0.01
    assert (counts["collision_rate_after"] == 0) == (way != "none")
    assert (counts["gate"]["advice"] is not None) == (way == "none")
    assert (counts["error_after"] > counts["error"]) == (way == "reassign")


@pytest.mark.parametrize("way", ["suffix", "none"])
@pytest.mark.parametrize("numbering", ["drawn", "by_id"])
def test_shared_codes_are_numbered_as_the_section_says(
    tmp_path: Path, way: str, numbering: str
) -> None:
    """Neither the catalogue's order nor popularity may show in a drawn number."""
    vectors = np.repeat(vectors_of(4), 50, axis=0)  # 4 groups of 50 equal items
    embeddings, sequences = inputs(tmp_path, vectors)
    order = np.random.default_rng(2).permutation(200)  # catalogue order is not that of ids
    ids = [f"i{n:04d}" for n in order]
    table = pa.table({"item_id": ids, "title": ids, "train_count": np.arange(200)})
    sequences.write_table("catalog.parquet", table)
    config = CodebooksConfig(
        num_codebooks=1, codebook_size=4, disambiguation=way, numbering=numbering
    )
    build_codebooks(config, embeddings, sequences, Folder.at(tmp_path / "out"), seed=1)
    number = SemanticIds.read(Folder.at(tmp_path / "out")).codes[:, 1].reshape(4, 50)
    if numbering == "by_id":
        assert (number == order.reshape(4, 50).argsort(axis=1).argsort(axis=1)).all()
        return
    for known in (np.arange(200), order):  # catalogue order and popularity; item ids
        ranks = known.reshape(4, 50).argsort(axis=1).argsort(axis=1)
        assert abs(np.corrcoef(ranks.ravel(), number.ravel())[0, 1]) < 0.25


def test_settings_of_another_kind_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = {"num_codebooks": 2, "codebook_size": 4, "rq_vae": {"commitment_weight": 1.0}}
    config = CodebooksConfig.parse(values)
    made = inputs(tmp_path, vectors_of(60))
    counts = build_codebooks(config, *made, Folder.at(tmp_path / "out"), seed=1)
    assert counts["unread"] == ["rq_vae"]
    assert "residual_kmeans ignores" in caplog.text
    assert CodebooksConfig(kind="rq_vae", max_iterations=3).unread() == ["max_iterations"]
    assert CodebooksConfig(kind="rq_vae").unread() == []


def write_histories(folder: Folder, users: list[list[int]], splits: list[list[int]]) -> None:
    items = [item for user in users for item in user]
    block = Histories(
        [f"u{n}" for n in range(len(users))],
        np.cumsum([0] + [len(user) for user in users]),
        np.array(items, dtype=np.int32),
        np.arange(len(items)),
        np.array([split for user in splits for split in user], dtype=np.int8),
    )
    folder.child("histories").write_table("shard-00000.parquet", block.to_table())


def test_agreement_by_hand(tmp_path: Path) -> None:
    codes = np.array([[0, 0], [0, 1], [0, 1], [1, 0]], dtype=np.int32)
    folder = Folder.at(tmp_path)
    train, test = int(Split.TRAIN), int(Split.TEST)
    # Pairs: 0-1 shares one code, 1-2 shares two, 2-3 none; 3-3 is no pair, 3-0 is a test event,
    # and 3-1 are two users.
    write_histories(folder, [[0, 1, 2, 3, 3, 0], [1]], [[train] * 5 + [test], [train]])
    found = prefix_agreement(codes, folder)
    assert found is not None
    assert found["pairs"] == 3
    assert found["shared"] == pytest.approx([2 / 3, 1 / 3])
    # First items 0, 1, 2 and second items 1, 2, 3, a third each: of 9 draws 2 are one item
    # twice (1-1, 2-2); 4 of the other 7 share one code, 2 (1-2, 2-1) both.
    assert found["expected"] == pytest.approx([4 / 7, 2 / 7])


def test_agreement_without_successive_items(tmp_path: Path) -> None:
    codes = np.zeros((2, 1), dtype=np.int32)
    assert prefix_agreement(codes, Folder.at(tmp_path)) is None
    write_histories(Folder.at(tmp_path), [[0], [1, 1]], [[0], [0, 0]])
    assert prefix_agreement(codes, Folder.at(tmp_path)) is None


@pytest.mark.parametrize("kind", ["rq_vae", "balanced_tree", "product_quantizer"])
def test_the_stage_takes_every_kind(tmp_path: Path, kind: str) -> None:
    values = {"kind": kind, "num_codebooks": 2, "codebook_size": 8, "rq_vae": {"steps": 3}}
    config = CodebooksConfig.parse(values)
    folder = Folder.at(tmp_path / "out")
    counts = build_codebooks(config, *inputs(tmp_path, vectors_of(60)), folder, seed=1)
    SemanticIds.read(folder).validate(60)
    assert counts["kind"] == kind
    assert QUANTIZERS[kind].load(folder, config).codes(
        torch.from_numpy(vectors_of(60)).float()
    ).codes.tolist() == [row[:2] for row in SemanticIds.read(folder).codes.tolist()]


@pytest.mark.parametrize("kind", ["residual_kmeans", "balanced_tree", "parallel_kmeans"])
def test_codes_of_the_control_are_even_and_say_nothing(tmp_path: Path, kind: str) -> None:
    """Items come in four tight groups; codes of the vectors know them, drawn codes do not."""
    group = np.arange(240) % 4
    vectors = 100 * np.eye(4)[group] + 0.01 * np.random.default_rng(0).standard_normal((240, 4))
    given = inputs(tmp_path, vectors)

    def first_codes(seed: int, **settings: object) -> np.ndarray:
        config = CodebooksConfig.parse(
            {"kind": kind, "num_codebooks": 3, "codebook_size": 8, "gate": "off", **settings}
        )
        out = Folder.at(tmp_path / f"{seed}{len(settings)}")
        build_codebooks(config, *given, out, seed=seed)
        return SemanticIds.read(out).codes[:, 0]

    def purity(codes: np.ndarray) -> float:
        """Share of pairs with one first code that are of one group; chance is 1/4."""
        same = codes[:, None] == codes[None]
        np.fill_diagonal(same, val=False)
        return float((group[:, None] == group[None])[same].mean())

    assert purity(first_codes(0)) > 0.9
    drawn = first_codes(0, drawn=True)
    assert purity(drawn) == pytest.approx(0.25, abs=0.05)
    assert np.bincount(drawn).max() < 80, "even enough to be names"
    assert not np.array_equal(drawn, first_codes(1, drawn=True))
