"""The three tasks: what each predicts from, what its gradient reaches, what training makes."""

import numpy as np
import pytest
import torch

from exact_search import exact_scores
from itemese.backbones.text_backbone import TextBackboneConfig, build_text_backbone
from itemese.core.errors import ConfigError
from itemese.core.ranking import Candidates
from itemese.core.vectors import SemanticIds
from itemese.decoding.decoding import beam_search
from itemese.decoding.free_beams import InvalidBeams, free_beam_search
from itemese.decoding.text_item_lm import TextItemLanguageModel
from itemese.decoding.trie import PrefixTrie
from itemese.losses.code_tokens import next_code
from itemese.prompts.item_tokens import TokenLayout

CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 2], [2, 2]], np.int32)
TEXTS = torch.tensor([[4, 5, 1, -1], [4, 6, 7, 1], [8, 1, -1, -1], [8, 9, 1, -1], [10, 11, 12, 1]])
ALL = ("token_to_token", "text_to_token", "token_to_text")


def built(dropout=0.0, num_predicted=None, normalisation="legal"):
    torch.manual_seed(0)
    config = TextBackboneConfig(dim=32, num_layers=2, num_heads=2, hidden_dim=64)
    lm = build_text_backbone(config, 20, 40)
    ids = SemanticIds(CODES, (3, 3), num_predicted)
    layout = TokenLayout.of(ids)
    return TextItemLanguageModel(
        lm,
        layout.item_tokens(ids),
        PrefixTrie.of(ids),
        texts=TEXTS,
        tokenizer=torch.zeros(4, dtype=torch.uint8),
        dropout=dropout,
        code_normalisation=normalisation,
    ).eval()


def test_only_the_tasks_that_are_asked_for_are_computed():
    module = built()
    history = torch.tensor([[0, 1, -1], [2, 3, 4]])
    for task in ALL:
        assert set(module(history, 6, tasks=(task,))) == {task}
    found = module(history, 6, tasks=ALL)
    assert [len(level) for level in found["token_to_token"][0]] == [5, 5]
    assert [tuple(level.shape) for level in found["text_to_token"][0]] == [(6, 3), (6, 3)]
    logits, words = found["token_to_text"]
    assert logits.shape == (len(words), 20)


def test_codes_are_named_from_the_own_text_alone():
    """A text's neighbours in the batch, their lengths and the padding change nothing."""
    module = built()
    items = torch.tensor([0, 1, 2, 3, 4])
    together, codes = module._name(items)
    assert codes.tolist() == CODES.tolist()
    for item in range(5):
        alone, _ = module._name(items[item : item + 1])
        for level in range(2):
            torch.testing.assert_close(alone[level][0], together[level][item])
    other = module.texts.clone()
    other[3, 0] = 15
    module.texts.copy_(other)
    changed, _ = module._name(items)
    assert not torch.allclose(changed[0][3], together[0][3])
    torch.testing.assert_close(changed[0][[0, 1, 2, 4]], together[0][[0, 1, 2, 4]])


def test_no_code_is_known_before_it_is_named():
    module = built()
    first, _ = module._name(torch.tensor([0]))
    module.item_tokens[0, 1] += 1  # the second code is predicted, not read
    again, _ = module._name(torch.tensor([0]))
    torch.testing.assert_close(first[0], again[0])
    torch.testing.assert_close(first[1], again[1])


def test_words_are_told_from_the_own_codes_alone():
    module = built()
    items = torch.tensor([0, 1, 4])
    logits, words = module._codes_to_text(items)
    assert words.tolist() == [4, 5, 1, 4, 6, 7, 1, 10, 11, 12, 1]
    alone = torch.cat([module._codes_to_text(items[n : n + 1])[0] for n in range(3)])
    torch.testing.assert_close(alone, logits)
    module.item_tokens[4] = module.item_tokens[0].clone()
    changed, _ = module._codes_to_text(items)
    assert not torch.allclose(changed[-4:], logits[-4:])
    torch.testing.assert_close(changed[:7], logits[:7])


@pytest.mark.parametrize("task", ALL)
def test_each_task_alone_is_learnt(task):
    module = built().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    history = torch.tensor([[0, 1, 2, 3, 4]])
    losses = []
    for _ in range(80):
        logits, labels = module(history, 10, tasks=(task,))[task]
        if task == "token_to_text":
            loss = torch.nn.functional.cross_entropy(logits, labels)
        else:
            loss = next_code(logits, labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    module.eval()
    right = (module.name(TEXTS).numpy() == CODES).all(axis=1)
    assert right.all() == (task == "text_to_token"), "naming comes from its own task alone"


@pytest.mark.parametrize("task", ALL)
def test_each_task_reaches_its_own_token_and_the_shared_model(task):
    module = built()
    logits, _ = module(torch.tensor([[0, 1]]), 4, tasks=(task,))[task]
    parts = logits if isinstance(logits, list) else [logits]
    sum(part.square().sum() for part in parts).backward()
    table = module.code_table.weight.grad
    own = {"token_to_token": 0, "text_to_token": module.naming, "token_to_text": module.telling}
    for name, row in own.items():
        assert bool(table[row].abs().sum()) == (name == task)
    shared = module.backbone.layers[0].self_attn.q_proj.weight.grad
    assert shared.abs().sum() > 0


def test_a_new_item_is_named_by_its_words():
    module = built().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for _ in range(80):
        logits, codes = module(torch.tensor([[0]]), 10, tasks=("text_to_token",))["text_to_token"]
        loss = next_code(logits, codes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.eval()
    new = torch.tensor([[10, 11, 1, -1], [8, 1, -1, -1]])  # nearly item 4; item 2 word for word
    named = module.name(new)
    assert named.tolist() == [[2, 2], [1, 0]]
    assert module.name(new[1:]).tolist() == [[1, 0]]


def brute_force(module, history):
    """Return the log-probability of each item over all codes, legal or not."""
    scores = []
    for item in range(5):
        whole = torch.cat([history, torch.tensor([[item]])], dim=1)
        logits, codes = super(TextItemLanguageModel, module).forward(whole)
        terms = [torch.log_softmax(x[-1], 0)[codes[-1, n]] for n, x in enumerate(logits)]
        scores.append(sum(terms))
    return torch.stack(scores).detach()


def test_free_beams_add_log_probabilities_over_all_codes():
    module, counts = built(), InvalidBeams()
    history = torch.tensor([[2, 0]])
    ranking = free_beam_search(
        module, history, 9, beam_width=9, candidates=Candidates(), counts=counts
    )
    expected = brute_force(module, history)
    order = expected.argsort(descending=True)
    assert ranking.item_index[0].tolist() == [*order.tolist(), -1, -1, -1, -1]
    torch.testing.assert_close(ranking.score[0, :5], expected[order], atol=1e-4, rtol=1e-4)
    assert (counts.ended, counts.invalid) == (9, 4), "nine tuples, five of them items"
    assert counts.share == pytest.approx(4 / 9)
    # Inside the tree the illegal share of the probability is the items'.
    inside = exact_scores(module, history)[0]
    assert (inside > expected - 1e-4).all()
    assert inside.exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_beams_inside_and_outside_the_tree_have_one_score_under_level_normalisation():
    module, counts = built(normalisation="level"), InvalidBeams()
    history = torch.tensor([[2, 0], [1, -1]])
    free = free_beam_search(
        module, history, 5, beam_width=9, candidates=Candidates(), counts=counts
    )
    inside = beam_search(module, history, 5, beam_width=9, candidates=Candidates())
    assert torch.equal(free.item_index, inside.item_index)
    torch.testing.assert_close(free.score, inside.score, atol=1e-4, rtol=1e-4)


def test_narrow_free_beams_may_end_on_nobody_where_the_tree_fills_the_list():
    module, counts = built(), InvalidBeams()
    history = torch.tensor([[2, 0], [1, -1]])
    hide = Candidates(exclude=torch.tensor([[2, 0], [1, -1]]))
    free = free_beam_search(module, history, 3, beam_width=3, candidates=hide, counts=counts)
    legal = beam_search(module, history, 3, beam_width=3, candidates=hide)
    assert (legal.item_index >= 0).all()
    assert not {2, 0} & set(free.item_index[0].tolist())
    assert (free.item_index < 0).sum() > 0
    assert counts.ended == 6


def test_free_beams_need_codes_of_one_item_each():
    module = built(num_predicted=1)
    with pytest.raises(ConfigError, match=r"codebooks\.disambiguation"):
        free_beam_search(
            module,
            torch.tensor([[0]]),
            2,
            beam_width=2,
            candidates=Candidates(),
            counts=InvalidBeams(),
        )
