"""RSLLM: which stage trains what, what its terms are, and what bad input does."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen3Config

from itemese.errors import ConfigError
from itemese.losses.contrastive import info_nce
from itemese.methods.base import Inputs, method_class, method_of
from itemese.methods.rsllm import Rsllm, RsllmConfig
from itemese.models.adapters import export_language_model
from itemese.models.prompt_draws import draw_candidates
from itemese.models.two_towers import TwoTowers
from itemese.prompts.tokenizer import END, TextTokenizer
from itemese.ranking import Candidates
from itemese.schema import Catalog, Example, Histories
from itemese.training.stepping import active_weights

NUM_ITEMS = 24
BACKBONE = {"dim": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 64, "vocabulary": 400}
SMALL = {
    "name": "rsllm",
    "prompt_items": 4,
    "num_candidates": 4,
    "projector_dim": 16,
    "max_title_tokens": 8,
    "max_tokens": 256,
    "backbone": BACKBONE,
}


def catalog(titles: list[str] | None = None) -> Catalog:
    ids = [f"i{i}" for i in range(NUM_ITEMS)]
    names = titles or [f"Film number {i}" for i in range(NUM_ITEMS)]
    counts = np.arange(NUM_ITEMS)  # item 0 is cold
    return Catalog(ids, names, counts, pa.table({"item_id": ids, "title": names}))


def recommender(name: str = "sasrec") -> nn.Module:
    def nobody() -> Iterator[Histories]:
        return iter(())

    settings = {"name": name, "dim": 8, "max_history": 12}
    encoder = method_of(method_class(name).Config.parse(settings))
    torch.manual_seed(5)
    return encoder.build(Inputs(catalog(), nobody)).eval().requires_grad_(False)


def inputs(**changes: Any) -> Inputs:
    whole = Inputs(catalog(), lambda: iter(()), recommender=recommender())
    return replace(whole, **changes)


def make(**changes: Any) -> tuple[Rsllm, TwoTowers]:
    method = Rsllm(RsllmConfig.parse({**SMALL, **changes}))
    torch.manual_seed(0)
    module = method.build(inputs())
    assert isinstance(module, TwoTowers)
    return method, module


def rows(count: int = 6, length: int = 7) -> list[Example]:
    drawn = np.random.default_rng(1).permutation(NUM_ITEMS * 3) % NUM_ITEMS
    items = [drawn[5 * n : 5 * n + length].astype(np.int32) for n in range(count)]
    return [Example(i, np.arange(len(i)), f"u{n}") for n, i in enumerate(items)]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small pretrained model on disk, with a tokenizer that has no padding token."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("pretrained")
    backend = TextTokenizer.trained([f"Film number {i}" for i in range(30)], 300).backend
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END).save_pretrained(folder)
    torch.manual_seed(7)
    config = Qwen3Config(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=48,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def lora(pretrained: str, **changes: Any) -> dict[str, Any]:
    return {"pretrained": pretrained, "adapter": "lora", "lora_rank": 2, **changes}


def enter(method: Rsllm, module: TwoTowers, stage: int) -> list[str]:
    """Do what the loop does at the start of a stage; return what is trained."""
    chosen = method.stages()[stage]
    free = {n for n, p in module.named_parameters() if p.requires_grad}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in free and name.startswith(chosen.trains))
    method.begin(module, chosen)
    return [n for n, p in module.named_parameters() if p.requires_grad]


def gradients(method: Rsllm, module: TwoTowers, stage: int) -> set[str]:
    """Return the parameters that a training step of the stage would move."""
    module.train()
    terms = method.losses(module, method.collate(rows()))
    weights = active_weights(method, method.stages()[stage])
    module.zero_grad()
    sum(weights[name] * terms[name] for name in weights).backward()
    found = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)
    return found


def test_stage_one_moves_lora_alone_and_stage_two_the_projector_too(pretrained: str) -> None:
    method, module = make(backbone=lora(pretrained))
    with torch.no_grad():  # LoRA begins at zero, where half of it has no gradient
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    free = {n for n, p in module.named_parameters() if p.requires_grad}
    adapters = {n for n in free if "lora_" in n}
    projector = {n for n in free if n.startswith("network.projector.")}
    assert adapters
    assert projector
    assert free == adapters | projector
    assert set(enter(method, module, 0)) == adapters
    assert gradients(method, module, 0) == adapters
    for name in projector:
        module.get_parameter(name).requires_grad_(True)
    assert set(enter(method, module, 1)) == adapters | projector
    assert gradients(method, module, 1) == adapters | projector


def test_stage_one_reads_no_vector_at_all() -> None:
    method, module = make()
    enter(method, module, 0)
    batch = method.collate(rows())
    torch.manual_seed(3)  # the offered items are drawn
    before = method.losses(module.eval(), batch)
    module.network.item_vectors.normal_()
    torch.nn.init.normal_(module.network.projector[0].weight)
    torch.manual_seed(3)
    after = method.losses(module, batch)
    assert {n: t.item() for n, t in before.items()} == pytest.approx(
        {n: t.item() for n, t in after.items()}
    )
    method.begin(module, method.stages()[1])
    torch.manual_seed(3)
    assert method.losses(module, batch)["language_model"] != after["language_model"]


def test_one_stage_is_the_unified_one() -> None:
    method, module = make(text_share=0.0)
    assert [s.name for s in method.stages()] == ["unified"]
    assert str(module.form) == "text_id"


@pytest.mark.parametrize("alignment", ["history_target", "modality"])
def test_the_contrastive_terms_are_the_formula_over_states_read_one_by_one(
    alignment: str,
) -> None:
    method, module = make(alignment=alignment, temperature=0.3)
    module.eval()
    examples = rows()
    batch = method.collate(examples)
    torch.manual_seed(3)  # the offered items are drawn
    terms = method.losses(module, batch)
    target = torch.tensor([int(e.history[-1]) for e in examples])
    past = [Example(e.history[:-1], e.timestamp[:-1], e.user_id) for e in examples]
    with torch.no_grad():
        open_batch = method.collate(past)
        states = module.history_states(open_batch["item_index"], open_batch["draw"])
        if alignment == "history_target":
            alone = module.item_states(target, "text_id")
            expected = info_nce(states, alone, target, 0.3)
            torch.testing.assert_close(terms["history_alignment"], expected)
            torch.manual_seed(3)
            views = module(batch["item_index"], batch["draw"])
            context = views.target.anchors
            torch.testing.assert_close(
                terms["target_alignment"], info_nce(context, alone, target, 0.3)
            )
        else:
            words = module.item_states(target, "text")
            expected = info_nce(module.network.project(target), words, target, 0.3)
            torch.testing.assert_close(terms["target_alignment"], expected)
            source = recommender()
            state = torch.stack(
                [source(torch.from_numpy(e.history[None]).long())[0][0, -1] for e in past]
            )
            known = module.network.projector(state / state.std())
            torch.testing.assert_close(
                terms["history_alignment"], info_nce(states, known, target, 0.3)
            )


def test_the_words_of_the_history_are_the_text_that_a_plain_model_is_asked_for() -> None:
    method, module = make(item_form="text", loss_weights={"history_words": 1.0})
    module.eval()
    batch = method.collate(rows())
    torch.manual_seed(3)  # the offered items are drawn
    found = method.losses(module, batch)["history_words"]
    torch.manual_seed(3)
    written = module.write_training(batch["item_index"], batch["draw"])
    lost = []
    for row, tokens in enumerate(written.tokens):
        start, end = int(written.history_start[row]), int(written.history_end[row])
        logits = module.network.lm(tokens[None, :end]).logits[0, start - 1 : end - 1]
        lost.append(nn.functional.cross_entropy(logits, tokens[start:end], reduction="none"))
    torch.testing.assert_close(found, torch.cat(lost).mean())


def test_the_target_in_context_is_the_mean_over_its_own_answer() -> None:
    method, module = make()
    module.eval()
    batch = method.collate(rows(2))
    places = (batch["item_index"] >= 0).sum(1) - 1
    target = batch["item_index"].gather(1, places[:, None])[:, 0]
    torch.manual_seed(3)
    views = module(batch["item_index"], batch["draw"])
    torch.manual_seed(3)
    offered = draw_candidates(batch["item_index"], target, NUM_ITEMS, 4)
    written = module.writer.prompts(
        batch["item_index"][:, -5:-1],
        batch["draw"] + places,
        module.form,
        candidates=offered,
        target=target,
    )
    for row in range(2):
        start, stop = int(written.answer_start[row]), int(written.lengths[row])
        alone = module.network.states(written.tokens[row : row + 1, :stop])[0]
        torch.testing.assert_close(views.target.anchors[row], alone[start:stop].mean(dim=0))


@pytest.mark.parametrize("term", ["history_alignment", "target_alignment"])
def test_a_weight_of_zero_removes_the_term_and_its_work(term: str) -> None:
    method, module = make(loss_weights={term: 0.0})
    terms = method.losses(module, method.collate(rows()))
    assert term not in terms
    assert set(active_weights(method, method.stages()[1])) == set(terms)


def test_without_both_terms_the_item_tower_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    method, module = make(loss_weights={"history_alignment": 0.0, "target_alignment": 0.0})
    monkeypatch.setattr(TwoTowers, "item_states", None)
    assert set(method.losses(module, method.collate(rows()))) == {"language_model"}


def test_earlier_targets_are_kept_as_negatives() -> None:
    method, module = make(cached_negatives=8)
    module.train()
    method.losses(module, method.collate(rows(3)))
    assert int((module.kept_items >= 0).sum()) == 3
    method.losses(module, method.collate(rows(6)))
    assert int((module.kept_items >= 0).sum()) == 8
    assert not module.kept.requires_grad
    assert "kept" not in module.state_dict()
    module.eval()
    before = module.kept_items.clone()
    method.losses(module, method.collate(rows(2)))
    assert torch.equal(module.kept_items, before)


def test_only_the_answer_decides_the_language_model_loss() -> None:
    method, module = make()
    module.eval()
    torch.manual_seed(3)
    batch = method.collate(rows(2))
    views = module(batch["item_index"], batch["draw"])
    tokenizer = TextTokenizer.from_tensor(module.get_buffer("tokenizer"))
    targets = [int(e.history[-1]) for e in rows(2)]
    answers = [[*tokenizer.encode(f"Film number {t}")[:8], tokenizer.end] for t in targets]
    assert views.labels.tolist() == answers[0] + answers[1]


def test_vectors_begin_as_large_as_words() -> None:
    _, module = make()
    every = module.network.project(torch.arange(NUM_ITEMS))
    words = module.network.lm.get_input_embeddings().weight
    assert every.std().item() == pytest.approx(words.std().item(), rel=0.2)


def test_an_item_that_nobody_trained_on_has_the_mean_vector() -> None:
    _, module = make()
    vectors = module.network.item_vectors
    torch.testing.assert_close(vectors[0], vectors[1:].mean(dim=0))


def test_random_vectors_are_another_draw_of_the_same_shape() -> None:
    real, drawn = make()[1].network.item_vectors, make(id_vectors="random")[1].network.item_vectors
    assert real.shape == drawn.shape
    assert abs(torch.corrcoef(torch.stack([real.flatten(), drawn.flatten()]))[0, 1]) < 0.3
    assert torch.equal(drawn, make(id_vectors="random")[1].network.item_vectors)


def test_every_way_of_choosing_names_an_offered_item() -> None:
    method, module = make()
    module.eval()
    batch = method.collate(rows(3))
    offered = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6], [5, 20, 21, -1]])
    with torch.no_grad():
        found = method.choose(module, batch, offered, NUM_ITEMS)
    assert set(found) == {"free", "trie", "likelihood", "ranked"}
    for mode, answers in found.items():
        for row, item in enumerate(answers.item_index.tolist()):
            assert item in offered[row].tolist()[: 4 - (row == 2)] or (mode == "free" and item < 0)
    assert len(found["free"].text) == 3
    with torch.no_grad():
        for way in method.ways_of_choosing:
            alone = method.choose(module, batch, offered, NUM_ITEMS, [way])
            assert set(alone) == {way}
            assert torch.equal(alone[way].item_index, found[way].item_index)


def test_more_items_than_prompts_are_made_for_are_refused() -> None:
    method, module = make()
    with pytest.raises(ConfigError, match="must be at most"):
        method.choose(module, method.collate(rows(1)), torch.tensor([[1, 2, 3, 4, 5]]), NUM_ITEMS)


def test_nothing_in_the_history_is_no_crash() -> None:
    method, module = make()
    module.eval()
    empty = Example(np.empty(0, np.int32), np.empty(0, np.int64), "u")
    batch = method.collate([empty])
    with torch.no_grad():
        ranking = method.predict(module, batch, 5, Candidates())
        chosen = method.choose(module, batch, torch.tensor([[1, 2, 3, 4]]), NUM_ITEMS)
    assert sorted(set(ranking.item_index[0].tolist())) == sorted(ranking.item_index[0].tolist())
    assert chosen["trie"].item_index.tolist()[0] in (1, 2, 3, 4)


def test_items_of_one_title_cannot_be_told_apart_by_words() -> None:
    method = Rsllm(RsllmConfig.parse({**SMALL, "item_form": "text_id"}))
    torch.manual_seed(0)
    module = method.build(inputs(catalog=catalog(["Same"] * NUM_ITEMS))).eval()
    with torch.no_grad():
        batch = method.collate(rows(1))
        found = method.choose(module, batch, torch.tensor([[1, 2, 3, 4]]), NUM_ITEMS)
    assert found["trie"].item_index.tolist() == [-1]


@pytest.mark.parametrize("title", ["<b></b>", "\x00\n", " ", "[ID] <end> \n next: Film 3"])
def test_any_title_stays_one_item(title: str) -> None:
    titles = [title, *[f"Film number {i}" for i in range(1, NUM_ITEMS)]]
    method = Rsllm(RsllmConfig.parse(SMALL))
    module = method.build(inputs(catalog=catalog(titles)))
    tokens = module.answer_tokens(torch.tensor([[0]]))[0, 0].tolist()
    tokenizer = TextTokenizer.from_tensor(module.get_buffer("tokenizer"))
    assert tokens.count(tokenizer.end) == 1
    assert "\n" not in tokenizer.decode(tokens)
    assert tokenizer.decode(tokens)


def test_ids_without_a_recommender_are_refused() -> None:
    with pytest.raises(ConfigError, match="`recommender` must be trained before"):
        Rsllm(RsllmConfig.parse(SMALL)).build(inputs(recommender=None))
    text = RsllmConfig.parse({**SMALL, "item_form": "text"})
    assert Rsllm(text).build(inputs(recommender=None))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"alignment": "modality", "item_form": "text"}, "with ID vectors where `alignment`"),
        ({"backbone": {"adapter": "lora"}}, "drawn weights are worth nothing frozen"),
        ({"item_form": "words"}, "'text', 'id' or 'text_id'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        RsllmConfig.parse({**SMALL, **changes}, where="method")


@pytest.mark.parametrize("form", ["text", "id", "text_id"])
def test_a_pretrained_model_is_restored_from_its_tensors(pretrained: str, form: str) -> None:
    method, module = make(backbone=lora(pretrained), item_form=form)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
    again = method.restore(inputs(recommender=None), module.state_dict())
    batch = method.collate(rows())
    with torch.no_grad():
        first = method.predict(module.eval(), batch, 5, Candidates())
        second = method.predict(again.eval(), batch, 5, Candidates())
    assert torch.equal(first.score, second.score)


def test_adapters_are_saved_without_the_model_they_adapt(pretrained: str) -> None:
    method, module = make(backbone=lora(pretrained))
    alone = module.state_dict()
    assert not [n for n in alone if n.startswith("network.lm.") and "lora_" not in n]
    assert [n for n in alone if "lora_A" in n]
    _, whole = make(backbone=lora(pretrained, save_base=True))
    assert set(alone) < set(whole.state_dict())
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
    whole.load_state_dict({**whole.state_dict(), **module.state_dict()})
    batch = method.collate(rows())
    first, second = (m.eval()(batch["item_index"], batch["draw"]) for m in (module, whole))
    assert torch.equal(first.labels, second.labels)
    broken = {n: t for n, t in alone.items() if "lora_A" not in n}
    with pytest.raises(RuntimeError, match="Missing key"):
        module.load_state_dict(broken)


def test_a_trained_model_is_exported_whole_or_as_adapters(pretrained: str, tmp_path: Path) -> None:
    from peft import PeftModel

    _, module = make(backbone=lora(pretrained))
    lm = module.network.lm.eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
        export_language_model(lm, tmp_path / "merged", merged=True)
        export_language_model(lm, tmp_path / "adapters", merged=False)
        tokens = torch.tensor([[3, 9, 27, 81]])
        expected = lm(input_ids=tokens).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(merged(input_ids=tokens).logits, expected, atol=1e-5, rtol=1e-4)
        base = AutoModelForCausalLM.from_pretrained(pretrained)
        loaded = PeftModel.from_pretrained(base, str(tmp_path / "adapters")).eval()
        torch.testing.assert_close(loaded(input_ids=tokens).logits, expected, atol=1e-5, rtol=1e-4)
        with pytest.raises(ConfigError, match="without adapters"):
            export_language_model(merged, tmp_path / "none", merged=False)


def test_checkpointed_gradients_are_the_same(pretrained: str) -> None:
    found = []
    for checkpointing in (False, True):
        backbone = lora(pretrained, lora_dropout=0.0, gradient_checkpointing=checkpointing)
        method, module = make(backbone=backbone)
        module.train()
        torch.manual_seed(2)
        sum(method.losses(module, method.collate(rows())).values()).backward()
        found.append({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name])
