"""The stage on the shared cluster, with the hashed model unless loading is the point."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.core.texts import Texts
from itemese.core.vectors import Embeddings
from itemese.embeddings.config import EmbeddingsConfig, KnowledgeVectorsConfig
from itemese.embeddings.models import HashingModel
from itemese.embeddings.stage import _blocks, build_embeddings

HASHING = EmbeddingsConfig(model="hashing", max_actors=2)


def catalog(root: Path, titles: list[str | None]) -> Folder:
    """Write a sequences artifact that holds nothing but the catalogue."""
    folder = Folder.at(root / "sequences")
    ids = [f"i{n:05d}" for n in range(len(titles))]
    table = {"item_id": ids, "title": pa.array(titles, pa.string()), "price": [1.5] * len(ids)}
    folder.write_table("catalog.parquet", pa.table(table))
    return folder


@pytest.mark.ray
def test_rows_are_in_catalogue_order(ray_cluster: None, tmp_path: Path) -> None:
    titles = [f"item number {n} {'long ' * (n % 40)}" for n in range(1300)]
    titles[5], titles[700] = None, " &nbsp; "
    out = Folder.at(tmp_path / "out")
    counts = build_embeddings(HASHING, catalog(tmp_path, titles), out)
    embeddings = Embeddings.read(out)
    embeddings.validate(1300)
    described = [n for n in range(1300) if n not in (5, 700)]
    direct = HashingModel().encode([str(titles[n]) for n in described])
    np.testing.assert_allclose(embeddings.vectors[described], direct, atol=1e-6)
    mean = direct.mean(axis=0)
    for bare in (5, 700):
        np.testing.assert_allclose(embeddings.vectors[bare], mean / np.linalg.norm(mean), atol=1e-5)
    assert embeddings.entity == "item"
    assert embeddings.source == "hashing of title"
    assert counts["items_without_text"] == 2
    assert counts["columns"] == ["title"]
    assert "brand" in counts["columns_absent"]
    assert counts["dim"] == 256
    assert counts["actors"] == 2


@pytest.mark.ray
def test_an_item_without_title_is_read_from_its_other_columns(
    ray_cluster: None, tmp_path: Path
) -> None:
    config = HASHING.model_copy(update={"columns": ("title", "price"), "normalize": False})
    out = Folder.at(tmp_path / "out")
    counts = build_embeddings(config, catalog(tmp_path, ["red shoe", None]), out)
    assert counts["items_without_text"] == 0
    expected = HashingModel().encode(["red shoe. 1.5", "1.5"])
    np.testing.assert_allclose(Embeddings.read(out).vectors, expected, atol=1e-6)


@pytest.mark.ray
def test_what_was_written_of_items_stands_beside_their_text(
    ray_cluster: None, tmp_path: Path
) -> None:
    sequences, knowledge = catalog(tmp_path, ["red shoe", "lamp", "hat"]), Folder.at(tmp_path / "k")
    said = ["to walk in", None, "for the sun"]
    Texts("item", ["i00000", "i00001", "i00002"], {"factors": said}).write(knowledge)
    chosen = {"texts": ["factors"], "weight": 0.5}
    out = Folder.at(tmp_path / "out")
    config = HASHING.model_copy(update={"knowledge": KnowledgeVectorsConfig(**chosen)})
    counts = build_embeddings(config, sequences, out, knowledge)
    found = Embeddings.read(out)
    assert found.parts == (("text", 256), ("knowledge", 256))
    plain = Folder.at(tmp_path / "plain")
    build_embeddings(HASHING, sequences, plain)
    np.testing.assert_array_equal(found.part("text"), Embeddings.read(plain).vectors)
    expected = HashingModel().encode(["to walk in", "for the sun"])
    np.testing.assert_allclose(found.part("knowledge")[[0, 2]], expected / 2, atol=1e-6)
    assert (counts["items_without_knowledge"], counts["items_without_text"]) == (1, 0)
    others = KnowledgeVectorsConfig(**chosen, shuffled=True)
    moved = Folder.at(tmp_path / "moved")
    build_embeddings(HASHING.model_copy(update={"knowledge": others}), sequences, moved, knowledge)
    control = Embeddings.read(moved)
    np.testing.assert_array_equal(control.part("text"), found.part("text"))
    rows = {tuple(row) for row in control.part("knowledge").tolist()}
    assert rows == {tuple(row) for row in found.part("knowledge").tolist()}
    wrong = HASHING.model_copy(update={"knowledge": KnowledgeVectorsConfig(texts=["factor"])})
    with pytest.raises(
        ConfigError, match=r"`knowledge.texts`; got \['factor'\]. Did you mean 'fac"
    ):
        build_embeddings(wrong, sequences, out, knowledge)


@pytest.mark.ray
def test_a_catalogue_of_one(ray_cluster: None, tmp_path: Path) -> None:
    out = Folder.at(tmp_path / "out")
    counts = build_embeddings(HASHING, catalog(tmp_path, ["red shoe"]), out)
    assert (counts["num_items"], counts["actors"]) == (1, 1)
    Embeddings.read(out).validate(1)


@pytest.mark.ray
def test_no_text_at_all_is_refused(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must hold text; got 2 items"):
        build_embeddings(HASHING, catalog(tmp_path, [None, ""]), Folder.at(tmp_path / "out"))
    assert Folder.at(tmp_path / "out").names() == []


@pytest.mark.ray
def test_what_an_actor_finds_wrong_reaches_the_user_as_one_sentence(
    ray_cluster: None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    config = EmbeddingsConfig(model=str(tmp_path))
    with pytest.raises(ConfigError, match=r"^`embeddings.model` must be loadable; got .*$"):
        build_embeddings(config, catalog(tmp_path, ["a"]), Folder.at(tmp_path / "out"))


@pytest.mark.ray
def test_a_gpu_that_is_not_there_is_refused(ray_cluster: None, tmp_path: Path) -> None:
    import ray

    if ray.cluster_resources().get("GPU"):
        pytest.skip("this cluster has a GPU")
    config = HASHING.model_copy(update={"device": "cuda"})
    with pytest.raises(ConfigError, match=r"embeddings.device.*Set it to auto"):
        build_embeddings(config, catalog(tmp_path, ["a"]), Folder.at(tmp_path / "out"))


def test_bad_settings_fail_before_a_cluster_is_touched(tmp_path: Path) -> None:
    out = Folder.at(tmp_path / "out")
    with pytest.raises(ConfigError, match="`embeddings"):
        build_embeddings(EmbeddingsConfig(model="./nowhere"), catalog(tmp_path, ["a"]), out)
    config = HASHING.model_copy(update={"columns": ("plot",)})
    with pytest.raises(ConfigError, match=r"got \['plot'\]. The items have: title, price"):
        build_embeddings(config, catalog(tmp_path, ["a"]), out)
    with pytest.raises(DataError, match="must hold items"):
        build_embeddings(HASHING, catalog(tmp_path, []), out)


@pytest.mark.parametrize(
    "values",
    [{"columns": []}, {"columns": [""]}, {"max_tokens": 0}, {"batch_size": 0}, {"modl": 1}],
)
def test_bad_values_are_refused(values: dict) -> None:
    with pytest.raises(ConfigError, match="`embeddings"):
        EmbeddingsConfig.parse(values, where="embeddings")


def test_blocks_carry_every_index_once(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    folder = catalog(tmp_path, [f"t{n}" for n in range(1100)])
    with pq.ParquetFile(f"{folder.uri}/catalog.parquet") as file:
        blocks = list(_blocks(file, ["title"], 1100))
    assert [b.num_rows for b in blocks] == [512, 512, 76]
    assert pa.concat_tables(blocks)["item_index"].to_pylist() == list(range(1100))
    assert blocks[1]["title"][0].as_py() == "t512"
