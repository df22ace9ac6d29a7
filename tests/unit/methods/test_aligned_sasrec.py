"""The integrated embedding: which loss reaches which half, and what each fusion is made of."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from given import given
from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError
from itemese.core.schema import Catalog, Request
from itemese.core.vectors import Embeddings
from itemese.methods.aligned_sasrec.network import AdaptiveLayerNorm
from itemese.methods.lookup import method_of, parse_method_config
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.result import vectors_of
from loss_values import loss_values

ITEMS, DIM, TEXT_DIM = 12, 8, 5
TEXT = np.random.default_rng(0).normal(size=(ITEMS, TEXT_DIM)).astype(np.float32)


def make(text=TEXT, unseen=(11,), **settings):
    counts = np.ones(ITEMS, np.int64)
    counts[list(unseen)] = 0
    ids = [f"i{n}" for n in range(ITEMS)]
    table = pa.table({"item_id": ids, "title": ids, "train_count": counts})
    parts = (("collaborative", 3), ("text", TEXT_DIM))
    vectors = np.concatenate([np.full((ITEMS, 3), 9.0, np.float32), text], axis=1)
    built_from = given(
        Catalog.from_table(table),
        lambda: iter(()),
        embeddings=Embeddings("item", vectors, "drawn", parts=parts),
    )
    config = {"name": "aligned_sasrec", "dim": DIM, "dropout": 0.0, **settings}
    method = method_of(parse_method_config(config))
    torch.manual_seed(0)
    return method, method.build(built_from)


def batch(method, *histories):
    rows = [Request(np.array(h, np.int32), np.arange(len(h))) for h in histories]
    return method.collate(rows)


def reached(method, module, term):
    """Return which parts of the module the gradient of one term reaches."""
    module.zero_grad()
    loss_values(method, module, batch(method, [0, 1, 2, 3], [4, 5, 6]))[term].backward()
    names = [n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()]
    return {name.partition(".")[0] for name in names}


ENCODER = {"positions", "blocks", "norm"}


def test_both_losses_train_both_halves() -> None:
    method, module = make()
    assert reached(method, module, "next_item") == {"collaborative", "adapter"} | ENCODER
    assert reached(method, module, "alignment") == {"collaborative", "adapter"}


def test_detached_halves_are_each_trained_by_their_own_loss() -> None:
    method, module = make(fusion="detached")
    assert reached(method, module, "next_item") == {"collaborative"} | ENCODER
    assert reached(method, module, "alignment") == {"adapter"}


@pytest.mark.parametrize(
    ("fusion", "trained", "width"),
    [
        ("raw", {"collaborative"}, DIM + TEXT_DIM),
        ("text", {"adapter"}, DIM),
        ("collaborative", {"collaborative"}, DIM),
    ],
)
def test_ablations_know_the_next_item_alone(fusion, trained, width) -> None:
    method, module = make(fusion=fusion)
    assert reached(method, module, "next_item") == trained | ENCODER
    assert set(loss_values(method, module, batch(method, [0, 1, 2]))) == {"next_item"}
    assert [stage.terms for stage in method.stages()] == [("next_item",)]
    assert method.item_vectors(module).shape == (ITEMS, width)
    both = make()[0]
    assert [stage.terms for stage in both.stages()] == [()]


def test_without_weight_no_alignment_is_computed() -> None:
    method, module = make(loss_weights={"alignment": 0.0})
    assert set(loss_values(method, module, batch(method, [0, 1, 2]))) == {"next_item"}


@pytest.mark.parametrize("fusion", ["joint", "detached", "raw"])
def test_a_vector_is_both_halves_each_of_length_1(fusion) -> None:
    method, module = make(fusion=fusion)
    vectors = method.item_vectors(module)
    (first, one), (second, two) = method.vector_parts(module)
    assert (first, second) == ("collaborative", "text")
    assert vectors.shape[1] == one + two
    torch.testing.assert_close(vectors[:, :one].norm(dim=1)[:11], torch.ones(11))
    torch.testing.assert_close(vectors[:, one:].norm(dim=1), torch.ones(ITEMS))
    if fusion == "raw":
        own = torch.nn.functional.normalize(torch.from_numpy(TEXT), dim=1)
        torch.testing.assert_close(vectors[:, one:], own)


@pytest.mark.parametrize("fusion", ["joint", "detached"])
def test_an_item_without_events_has_its_text_half_twice(fusion) -> None:
    method, module = make(fusion=fusion, unseen=(3, 11))
    assert method.embeds_cold_items
    vectors = method.item_vectors(module)
    torch.testing.assert_close(vectors[[3, 11], :DIM], vectors[[3, 11], DIM:])
    assert not torch.allclose(vectors[4, :DIM], vectors[4, DIM:])


def test_an_item_without_events_and_without_text_half_has_the_mean() -> None:
    method, module = make(fusion="collaborative", unseen=(3,))
    assert not method.embeds_cold_items
    vectors = method.item_vectors(module)
    others = [n for n in range(ITEMS) if n != 3]
    torch.testing.assert_close(vectors[3], vectors[others].mean(dim=0))


def test_alignment_brings_an_items_halves_together_and_pushes_others_apart() -> None:
    method, module = make(loss_weights={"next_item": 0.0, "alignment": 1.0})
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
    rows = batch(method, [0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    before = method.facts(module)
    for _ in range(100):
        loss = loss_values(method, module, rows)["alignment"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = method.facts(module)
    assert after["cosine_of_halves"] > 0.7 > before["cosine_of_halves"]
    assert after["cosine_of_halves"] > after["cosine_by_chance"] + 0.5


def test_items_of_equal_words_are_no_negatives_of_one_another() -> None:
    twins = TEXT.copy()
    twins[1] = twins[0]
    method, module = make(text=twins)
    rows = batch(method, [0, 1])
    assert loss_values(method, module, rows)["alignment"].item() == pytest.approx(0, abs=1e-6)
    method, module = make()
    assert loss_values(method, module, rows)["alignment"].item() > 0.01


def test_equal_texts_of_all_items_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"separate items.*12 equal vectors"):
        make(text=np.ones((ITEMS, TEXT_DIM), np.float32))
    make(text=np.ones((ITEMS, TEXT_DIM), np.float32), fusion="collaborative")


def test_the_encoder_reads_what_it_is_said_to() -> None:
    """Another text changes the states of the joint encoder, and those of the detached one never."""
    for fusion, changes in (("joint", True), ("text", True), ("detached", False), ("raw", False)):
        module = make(fusion=fusion, unseen=())[1]
        with torch.no_grad():
            before, _ = module.eval()(torch.tensor([[0, 1]]))
            module.text[0] += 1.0
            after, _ = module(torch.tensor([[0, 1]]))
        assert torch.allclose(before, after) != changes, fusion


def test_the_adapter_is_a_modulated_norm_of_the_projection() -> None:
    torch.manual_seed(0)
    adapter = AdaptiveLayerNorm(TEXT_DIM, DIM)
    text = torch.from_numpy(TEXT)
    projected = torch.nn.functional.layer_norm(adapter.project(text), (DIM,))
    torch.testing.assert_close(adapter(text), projected)  # the modulation begins at nothing
    with torch.no_grad():
        adapter.modulate.weight.normal_()
        adapter.modulate.bias.normal_()
    scale, shift = adapter.modulate(text).split(DIM, dim=1)
    torch.testing.assert_close(adapter(text), (1 + scale) * projected + shift)


RECIPE = {
    "name": "small",
    "logs": {"source": "simulated"},
    "embeddings": {"model": "hashing", "recommender": {}},
    "recommender": {"method": {"name": "aligned_sasrec", "dim": DIM, "dropout": 0.0}},
    "method": {"name": "prorec"},
}


def test_it_reads_the_embeddings_as_they_are_without_it() -> None:
    experiment = Experiment.parse(RECIPE)
    assert experiment.embeds_recommender
    assert experiment.upstream.embeddings.recommender is None
    assert not experiment.upstream.embeds_recommender
    worded = {**RECIPE, "recommender": {"method": {"name": "semantic_id_lm"}}}
    with pytest.raises(ConfigError, match="gives items vectors by itself"):
        Experiment.parse(worded)


@pytest.mark.parametrize("fusion", ["joint", "collaborative"])
def test_the_embeddings_take_what_it_knows_of_items_without_events(
    fusion: str, tmp_path: Path
) -> None:
    """The text half in both places; without one the mean of the others."""
    method, module = make(fusion=fusion)
    places = {name: Folder.at(tmp_path / name) for name in ("sequences", "embeddings", "training")}
    ids = [f"i{n}" for n in range(ITEMS)]
    counts = np.append(np.ones(ITEMS - 1, np.int64), 0)
    table = pa.table({"item_id": ids, "title": ids, "train_count": counts})
    places["sequences"].write_table("catalog.parquet", table)
    Embeddings("item", TEXT, "drawn", parts=(("text", TEXT_DIM),)).write(places["embeddings"])
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    places["training"].write_tensors("model.safetensors", state)
    recommender = {"method": {"name": "aligned_sasrec", "dim": DIM, "fusion": fusion}}
    upstream = Experiment.parse({**RECIPE, "recommender": recommender}).upstream
    artifacts = {name: SimpleNamespace(folder=folder) for name, folder in places.items()}
    vectors, parts = vectors_of(upstream, method_of(upstream.method), artifacts)
    expected = method.item_vectors(module).detach()
    torch.testing.assert_close(torch.from_numpy(vectors), expected)
    assert parts == method.vector_parts(module)
    last = vectors[-1]
    if fusion == "joint":
        np.testing.assert_allclose(last[:DIM], last[DIM:], rtol=1e-6)
    else:
        np.testing.assert_allclose(last, vectors[:-1].mean(axis=0), atol=1e-6)
