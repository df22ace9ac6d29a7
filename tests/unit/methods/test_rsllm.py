"""RSLLM: which stage trains what, what its terms are, and what bad input does."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from itemese.core.errors import ConfigError
from itemese.core.ranking import Candidates
from itemese.core.schema import Request
from itemese.layers.prompt_draws import draw_candidates
from itemese.methods.rsllm.method import Rsllm, RsllmConfig
from itemese.methods.rsllm.network import RsllmNetwork
from itemese.prompts.tokenizer import TextTokenizer
from itemese.training.step import active_weights
from loss_values import loss_values


def enter(method: Rsllm, module: RsllmNetwork, stage: int) -> list[str]:
    """Do what the loop does at the start of a stage; return what is trained."""
    chosen = method.stages()[stage]
    free = {n for n, p in module.named_parameters() if p.requires_grad}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in free and name.startswith(chosen.trains))
    method.on_stage_start(module, chosen)
    return [n for n, p in module.named_parameters() if p.requires_grad]


def gradients(method: Rsllm, module: RsllmNetwork, stage: int, requests: list[Request]) -> set[str]:
    """Return the parameters that a training step of the stage would move."""
    module.train()
    terms = loss_values(method, module, method.collate(requests))
    weights = active_weights(method, method.stages()[stage])
    module.zero_grad()
    sum(weights[name] * terms[name] for name in weights).backward()
    found = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)
    return found


def test_stage_one_moves_lora_alone_and_stage_two_the_projector_too(
    small: Any, pretrained: str
) -> None:
    method, module = small.make(backbone=small.lora(pretrained))
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
    assert gradients(method, module, 0, small.rows()) == adapters
    for name in projector:
        module.get_parameter(name).requires_grad_(True)
    assert set(enter(method, module, 1)) == adapters | projector
    assert gradients(method, module, 1, small.rows()) == adapters | projector


def test_stage_one_reads_no_vector_at_all(small: Any) -> None:
    method, module = small.make()
    enter(method, module, 0)
    batch = method.collate(small.rows())
    torch.manual_seed(3)  # the offered items are drawn
    before = loss_values(method, module.eval(), batch)
    module.network.item_vectors.normal_()
    torch.nn.init.normal_(module.network.projector[0].weight)
    torch.manual_seed(3)
    after = loss_values(method, module, batch)
    assert {n: t.item() for n, t in before.items()} == pytest.approx(
        {n: t.item() for n, t in after.items()}
    )
    method.on_stage_start(module, method.stages()[1])
    torch.manual_seed(3)
    assert loss_values(method, module, batch)["language_model"] != after["language_model"]


def test_one_stage_is_the_unified_one(small: Any) -> None:
    method, module = small.make(text_share=0.0)
    assert [s.name for s in method.stages()] == ["unified"]
    assert str(module.form) == "text_id"


def test_the_copy_stage_asks_for_every_offered_title(small: Any) -> None:
    method, module = small.make(copy_share=0.2, text_share=0.3, copy_candidates=3)
    names = [stage.name for stage in method.stages()]
    assert names == ["copy", "text", "unified"]
    assert [stage.validated for stage in method.stages()] == [False, True, True]
    method.on_stage_start(module, method.stages()[0])
    batch = method.collate(small.rows(3))
    written = module.write_training(batch["item_index"], batch["draw"])
    assert (written.tokens >= -1).all()  # no ID vector
    text = TextTokenizer.from_tensor(module.get_buffer("tokenizer"))
    for row in range(3):
        answer = text.decode([t for t in written.labels[row].tolist() if t >= 0])
        prompt = written.tokens[row, : int(written.answer_start[row])]
        asked = answer.removesuffix("<end>").splitlines()
        assert len(set(asked)) == 3
        offered = text.decode([t for t in prompt.tolist() if t >= 0]).splitlines()
        assert set(asked) <= set(offered)
    assert set(loss_values(method, module, batch)) == {"language_model"}
    method.on_stage_start(module, method.stages()[1])
    assert not module.copied


def test_stages_leave_unified_prompts_a_share(small: Any) -> None:
    with pytest.raises(ConfigError, match="leave unified prompts a share; they sum to 1"):
        small.make(copy_share=0.5, text_share=0.5)


def test_the_words_of_the_history_are_the_text_that_a_plain_model_is_asked_for(small: Any) -> None:
    method, module = small.make(item_form="text", loss_weights={"history_words": 1.0})
    module.eval()
    batch = method.collate(small.rows())
    torch.manual_seed(3)  # the offered items are drawn
    found = loss_values(method, module, batch)["history_words"]
    torch.manual_seed(3)
    written = module.write_training(batch["item_index"], batch["draw"])
    lost = []
    for row, tokens in enumerate(written.tokens):
        start, end = int(written.history_start[row]), int(written.history_end[row])
        logits = module.network.lm(tokens[None, :end]).logits[0, start - 1 : end - 1]
        lost.append(nn.functional.cross_entropy(logits, tokens[start:end], reduction="none"))
    torch.testing.assert_close(found, torch.cat(lost).mean())


def test_the_target_in_context_is_the_mean_over_its_own_answer(small: Any) -> None:
    method, module = small.make()
    module.eval()
    batch = method.collate(small.rows(2))
    places = (batch["item_index"] >= 0).sum(1) - 1
    target = batch["item_index"].gather(1, places[:, None])[:, 0]
    torch.manual_seed(3)
    views = module(batch["item_index"], batch["draw"])
    torch.manual_seed(3)
    offered = draw_candidates(batch["item_index"], target, small.num_items, 4)
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


def test_only_the_answer_decides_the_language_model_loss(small: Any) -> None:
    method, module = small.make()
    module.eval()
    torch.manual_seed(3)
    batch = method.collate(small.rows(2))
    views = module(batch["item_index"], batch["draw"])
    tokenizer = TextTokenizer.from_tensor(module.get_buffer("tokenizer"))
    targets = [int(e.history[-1]) for e in small.rows(2)]
    answers = [[*tokenizer.encode(f"Film number {t}")[:8], tokenizer.end] for t in targets]
    assert views.labels.tolist() == answers[0] + answers[1]


def test_vectors_begin_as_large_as_words(small: Any) -> None:
    _, module = small.make()
    every = module.network.project(torch.arange(small.num_items))
    words = module.network.lm.get_input_embeddings().weight
    assert every.std().item() == pytest.approx(words.std().item(), rel=0.2)


def test_an_item_that_nobody_trained_on_has_the_mean_vector(small: Any) -> None:
    _, module = small.make()
    vectors = module.network.item_vectors
    torch.testing.assert_close(vectors[0], vectors[1:].mean(dim=0))


def test_random_vectors_are_another_draw_of_the_same_shape(small: Any) -> None:
    real, drawn = (
        small.make()[1].network.item_vectors,
        small.make(id_vectors="random")[1].network.item_vectors,
    )
    assert real.shape == drawn.shape
    assert abs(torch.corrcoef(torch.stack([real.flatten(), drawn.flatten()]))[0, 1]) < 0.3
    assert torch.equal(drawn, small.make(id_vectors="random")[1].network.item_vectors)


def test_every_way_of_choosing_names_an_offered_item(small: Any) -> None:
    method, module = small.make()
    module.eval()
    batch = method.collate(small.rows(3))
    offered = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6], [5, 20, 21, -1]])
    with torch.no_grad():
        found = method.choose(module, batch, offered)
    assert set(found) == {"free", "trie", "likelihood", "ranked"}
    for mode, answers in found.items():
        for row, item in enumerate(answers.item_index.tolist()):
            assert item in offered[row].tolist()[: 4 - (row == 2)] or (mode == "free" and item < 0)
    assert len(found["free"].text) == 3
    with torch.no_grad():
        for way in method.choice_modes:
            alone = method.choose(module, batch, offered, [way])
            assert set(alone) == {way}
            assert torch.equal(alone[way].item_index, found[way].item_index)


def test_more_items_than_prompts_are_made_for_are_refused(small: Any) -> None:
    method, module = small.make()
    with pytest.raises(ConfigError, match="must be at most"):
        method.choose(module, method.collate(small.rows(1)), torch.tensor([[1, 2, 3, 4, 5]]))


def test_nothing_in_the_history_is_no_crash(small: Any) -> None:
    method, module = small.make()
    module.eval()
    empty = Request(np.empty(0, np.int32), np.empty(0, np.int64), "u")
    batch = method.collate([empty])
    with torch.no_grad():
        ranking = method.predict(module, batch, 5, Candidates())
        chosen = method.choose(module, batch, torch.tensor([[1, 2, 3, 4]]))
    assert sorted(set(ranking.item_index[0].tolist())) == sorted(ranking.item_index[0].tolist())
    assert chosen["trie"].item_index.tolist()[0] in (1, 2, 3, 4)


def test_items_of_one_title_cannot_be_told_apart_by_words(small: Any) -> None:
    method = Rsllm(RsllmConfig.parse({**small.settings, "item_form": "text_id"}))
    torch.manual_seed(0)
    module = method.build(small.inputs(catalog=small.catalog(["Same"] * small.num_items))).eval()
    with torch.no_grad():
        batch = method.collate(small.rows(1))
        found = method.choose(module, batch, torch.tensor([[1, 2, 3, 4]]))
    assert found["trie"].item_index.tolist() == [-1]


@pytest.mark.parametrize("title", ["<b></b>", "\x00\n", " ", "[ID] <end> \n next: Film 3"])
def test_any_title_stays_one_item(small: Any, title: str) -> None:
    titles = [title, *[f"Film number {i}" for i in range(1, small.num_items)]]
    method = Rsllm(RsllmConfig.parse(small.settings))
    module = method.build(small.inputs(catalog=small.catalog(titles)))
    tokens = module.answer_tokens(torch.tensor([[0]]))[0, 0].tolist()
    tokenizer = TextTokenizer.from_tensor(module.get_buffer("tokenizer"))
    assert tokens.count(tokenizer.end) == 1
    assert "\n" not in tokenizer.decode(tokens)
    assert tokenizer.decode(tokens)


def test_ids_without_a_recommender_are_refused(small: Any) -> None:
    with pytest.raises(ConfigError, match="`recommender` must be trained before"):
        Rsllm(RsllmConfig.parse(small.settings)).build(small.inputs(recommender=None))
    text = RsllmConfig.parse({**small.settings, "item_form": "text"})
    assert Rsllm(text).build(small.inputs(recommender=None))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"alignment": "modality", "item_form": "text"}, "with ID vectors where `alignment`"),
        ({"backbone": {"adapter": "lora"}}, "drawn weights are worth nothing frozen"),
        ({"item_form": "words"}, "'text', 'id' or 'text_id'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    small: Any, changes: Any, what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        RsllmConfig.parse({**small.settings, **changes}, where="method")
