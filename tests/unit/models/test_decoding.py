"""Beam search against brute force, and the properties that any caller relies on."""

import itertools

import pytest
import torch

from itemese.codebooks.trie import PrefixTrie
from itemese.models.backbone import BackboneConfig, build_backbone
from itemese.models.decoding import beam_search
from itemese.models.item_language import ItemLanguageModel
from itemese.ranking import Candidates

SIZES = (4, 5, 3)


def make_model(
    architecture: str = "qwen3", num_items: int = 40, seed: int = 0
) -> ItemLanguageModel:
    generator = torch.Generator().manual_seed(seed)
    everything = torch.tensor(list(itertools.product(*(range(size) for size in SIZES))))
    codes = everything[torch.randperm(len(everything), generator=generator)[:num_items]]
    starts = (1, 1 + SIZES[0], 1 + SIZES[0] + SIZES[1])
    torch.manual_seed(seed)
    config = BackboneConfig(
        architecture=architecture, dim=32, num_layers=2, num_heads=2, hidden_dim=64
    )
    backbone = build_backbone(config, 1 + sum(SIZES), 64)
    for parameter in backbone.parameters():  # spread the logits, so that rankings are decided
        torch.nn.init.normal_(parameter, std=0.3)
    return ItemLanguageModel(
        backbone,
        codes + torch.tensor(starts),
        starts=starts,
        code_sizes=SIZES,
        opening=0,
        tree=PrefixTrie.from_codes(codes, SIZES),
        dropout=0.0,
    ).eval()


def brute_force(model: ItemLanguageModel, history: list[int]) -> torch.Tensor:
    """Score every item by reading history + item in one pass, normalised over legal children."""
    codes = model.item_tokens - torch.tensor(model.starts)
    scores = []
    for item in range(len(codes)):
        tokens = model.history_tokens(torch.tensor([[*history, item]]))[:, :-1]
        vectors = torch.nn.functional.embedding(tokens, model.token_table)
        states = model.backbone(inputs_embeds=vectors).last_hidden_state[0, -len(SIZES) :]
        total = 0.0
        for level in range(len(SIZES)):
            prefix = codes[item, :level]
            same = (codes[:, :level] == prefix).all(dim=1)
            legal = codes[same, level].unique()
            logits = model.code_logits(states[level], level)
            total += (logits[codes[item, level]] - logits[legal].logsumexp(0)).item()
        scores.append(total)
    return torch.tensor(scores)


HISTORIES = [[3], [7, 1, 12], [0, 5, 5, 30, 2]]


def padded(histories: list[list[int]]) -> torch.Tensor:
    longest = max(map(len, histories))
    return torch.tensor([h + [-1] * (longest - len(h)) for h in histories])


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2"])
@torch.no_grad()
def test_wide_beam_equals_brute_force(architecture: str) -> None:
    model = make_model(architecture)
    ranking = beam_search(model, padded(HISTORIES), 40, beam_width=40, candidates=Candidates())
    for row, history in enumerate(HISTORIES):
        expected = brute_force(model, history)
        assert expected.exp().sum().item() == pytest.approx(1.0, abs=1e-4)
        assert ranking.item_index[row].tolist() == expected.argsort(descending=True).tolist()
        torch.testing.assert_close(ranking.score[row], expected.sort(descending=True).values)


@torch.no_grad()
def test_a_row_alone_equals_the_row_in_a_padded_batch() -> None:
    model = make_model()
    together = beam_search(model, padded(HISTORIES), 5, beam_width=7, candidates=Candidates())
    for row, history in enumerate(HISTORIES):
        alone = beam_search(model, padded([history]), 5, beam_width=7, candidates=Candidates())
        assert alone.item_index[0].tolist() == together.item_index[row].tolist()
        torch.testing.assert_close(alone.score[0], together.score[row])


@torch.no_grad()
def test_hidden_items_leave_the_others_in_their_order() -> None:
    model = make_model()
    whole = beam_search(model, padded([[3]]), 40, beam_width=40, candidates=Candidates())
    order = whole.item_index[0].tolist()
    hidden = order[:6]
    allowed = torch.ones(40, dtype=torch.bool)
    allowed[order[7]] = False
    candidates = Candidates(exclude=torch.tensor([[*hidden, -1]]), allowed=allowed)
    rest = beam_search(model, padded([[3]]), 10, beam_width=40, candidates=candidates)
    expected = [i for i in order if i not in hidden and i != order[7]][:10]
    assert rest.item_index[0].tolist() == expected


@torch.no_grad()
def test_fewer_items_than_asked_for_are_padded() -> None:
    model = make_model(num_items=3)
    ranking = beam_search(model, padded([[0]]), 5, beam_width=5, candidates=Candidates())
    assert sorted(ranking.item_index[0].tolist()) == [-1, -1, 0, 1, 2]
    assert ranking.item_index[0, 3:].tolist() == [-1, -1]
    nothing = Candidates(allowed=torch.zeros(3, dtype=torch.bool))
    empty = beam_search(model, padded([[0]]), 5, beam_width=5, candidates=nothing)
    assert (empty.item_index == -1).all()


@pytest.mark.parametrize("seed", range(5))
@torch.no_grad()
def test_outputs_are_distinct_catalogue_items(seed: int) -> None:
    model = make_model(num_items=30 + seed, seed=seed)
    ranking = beam_search(model, padded(HISTORIES[:2]), 10, beam_width=3, candidates=Candidates())
    for items in ranking.item_index.tolist():
        assert len(set(items)) == 10
        assert set(items) <= set(range(30 + seed))
    assert (ranking.score.diff(dim=1) <= 0).all()
