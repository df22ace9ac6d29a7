"""Recommending with an item language model against brute force and Hugging Face `generate`."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor

from exact_search import exact_scores, exact_search
from itemese.benchmarks.decode_baseline import causal_model, generate, prefix_table
from itemese.core.errors import ConfigError
from itemese.core.ranking import Candidates
from itemese.decoding.code_model import CodeNormalisation
from itemese.decoding.decoding import beam_search, item_scores
from itemese.decoding.fast.decoder import FastDecoder
from itemese.decoding.fast.prompt_cache import PromptCache
from itemese.decoding.fast.weights import read_weights
from itemese.decoding.item_language import ItemLanguageModel
from itemese.losses.code_tokens import next_code

HISTORIES = [[3], [7, 1, 12], [0, 5, 5, 30, 2]]
ALL = Candidates()


def padded(histories: list[list[int]]) -> Tensor:
    longest = max(map(len, histories))
    return torch.tensor([h + [-1] * (longest - len(h)) for h in histories])


@torch.no_grad()
def brute_force(model: ItemLanguageModel, history: list[int]) -> Tensor:
    """Score every item by reading history + item in one plain pass of the Hugging Face module."""
    codes = model.item_tokens - torch.tensor(model.starts)
    depth = model.code_length
    rows = torch.tensor([[*history, item] for item in range(len(codes))])
    vectors = F.embedding(model.history_tokens(rows)[:, :-1], model.token_table)
    states = model.backbone(inputs_embeds=vectors, use_cache=False).last_hidden_state[:, -depth:]
    scores = torch.zeros(len(codes))
    for level in range(depth):
        logits = model.code_logits(states[:, level], level)
        for item, code in enumerate(codes[:, level].tolist()):
            rivals = torch.arange(logits.shape[1])
            if model.code_normalisation == "legal":
                same = (codes[:, :level] == codes[item, :level]).all(dim=1)
                rivals = codes[same, level].unique()
            scores[item] += logits[item, code] - logits[item, rivals].logsumexp(0)
    return scores


FAST = {
    "qwen3": {"num_key_value_heads": 1},
    "qwen2": {"num_attention_heads": 4, "head_dim": 8},
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": None},
    "gpt2": {"n_inner": 48},
}
GENERAL = ["gpt_neox", "olmo", "stablelm"]


@pytest.mark.parametrize(
    ("architecture", "normalisation"),
    [
        *itertools.product([*FAST, *GENERAL], ["legal"]),
        *itertools.product(["qwen3", "gpt_neox"], ["level"]),
    ],
)
def test_wide_beams_and_exact_scores_equal_brute_force(
    architecture: str, normalisation: CodeNormalisation, make_model
) -> None:
    model = make_model(architecture, normalisation=normalisation, **FAST.get(architecture, {}))
    assert (FastDecoder.of(model.backbone) is not None) == (architecture in FAST)
    ranking = beam_search(model, padded(HISTORIES), 40, beam_width=40, candidates=ALL)
    exact = exact_scores(model, padded(HISTORIES))
    for row, history in enumerate(HISTORIES):
        expected = brute_force(model, history)
        total = expected.exp().sum().item()  # 40 of 60 possible codes are items
        assert total == pytest.approx(1, abs=1e-4) if normalisation == "legal" else total < 0.99
        assert ranking.item_index[row].tolist() == expected.argsort(descending=True).tolist()
        best = expected.sort(descending=True).values
        torch.testing.assert_close(ranking.score[row], best, atol=1e-4, rtol=0)
        torch.testing.assert_close(exact[row], expected, atol=1e-4, rtol=0)
    for count in (1, 7):  # different items of each row
        items = torch.arange(len(HISTORIES) * count).view(-1, count) * 5 % 40
        some = item_scores(model, padded(HISTORIES), items)
        torch.testing.assert_close(some, exact.gather(1, items), atol=1e-4, rtol=0)


def likelihood(model: ItemLanguageModel, history: list[int], item: int) -> float:
    """Return the log-likelihood that training gives an item: its loss is a mean over L codes."""
    with torch.no_grad():
        logits, codes = model(padded([[*history, item]]))
    loss = next_code([level[-1:] for level in logits], codes[-1:])
    return -model.code_length * loss.item()


@pytest.mark.parametrize("normalisation", ["legal", "level"])
def test_without_gaps_in_the_tree_scores_are_the_likelihood_of_training(
    normalisation: CodeNormalisation, make_model
) -> None:
    model = make_model(num_items=60, normalisation=normalisation)  # every tuple is an item
    exact = exact_scores(model, padded([[7, 1, 12]]))[0].tolist()
    assert exact == pytest.approx(
        [likelihood(model, [7, 1, 12], item) for item in range(60)], abs=1e-4
    )


def test_with_gaps_only_level_scores_are_the_likelihood_of_training(make_model) -> None:
    history = [2, 0, 5]
    level = make_model(num_items=8, normalisation="level")
    legal = make_model(num_items=8, normalisation="legal")
    trained = [likelihood(level, history, item) for item in range(8)]
    assert exact_scores(level, padded([history]))[0].tolist() == pytest.approx(trained, abs=1e-4)
    # Renormalised by hand: at each node an item's code against the codes of its siblings.
    codes = legal.codes_of(torch.arange(8))
    with torch.no_grad():
        logits, _ = legal(padded([[*history, item] for item in range(8)]))
    ends = [part.view(8, 4, -1)[:, -1] for part in logits]
    expected = []
    for item in range(8):
        total = 0.0
        for depth, part in enumerate(ends):
            same = (codes[:, :depth] == codes[item, :depth]).all(dim=1)
            siblings = part[item].exp()[codes[same, depth].unique()]
            total += (part[item, codes[item, depth]].exp() / siblings.sum()).log().item()
        expected.append(total)
    found = exact_scores(legal, padded([history]))[0].tolist()
    assert found == pytest.approx(expected, abs=1e-4)
    assert max(abs(a - b) for a, b in zip(found, trained, strict=True)) > 0.5


def test_an_only_child_is_certain_under_legal_and_not_under_level(make_model) -> None:
    """Two items part at their first code; what follows has no rival in the catalogue."""
    for over in ("legal", "level"):
        model = make_model(num_items=2, normalisation=over)
        first, other = model.codes_of(torch.arange(2))[:, 0].tolist()
        assert first != other
        with torch.no_grad():
            logits, _ = model(padded([[1, 0]]))
        of_two = logits[0][-1][[first, other]].log_softmax(0)[0].item()
        expected = of_two if over == "legal" else likelihood(model, [1], 0)
        found = exact_scores(model, padded([[1]]))[0, 0].item()
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_five_hundred_items_by_brute_force(architecture: str, make_model) -> None:
    model = make_model(architecture, 500, sizes=(8, 9, 10))
    history = [499, 3, 77]
    expected = brute_force(model, history)
    order = expected.argsort(descending=True)[:50].tolist()
    wide = beam_search(model, padded([history]), 50, beam_width=500, candidates=ALL)
    exact = exact_search(model, padded([history]), 50, candidates=ALL)
    assert wide.item_index[0].tolist() == exact.item_index[0].tolist() == order
    torch.testing.assert_close(
        exact_scores(model, padded([history]))[0], expected, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_equals_constrained_generate_on_two_hundred_prompts(architecture: str, make_model) -> None:
    model = make_model(architecture, 120, sizes=(6, 7, 5, 3))
    whole, table = causal_model(model), prefix_table(model.item_tokens)
    generator = torch.Generator().manual_seed(1)
    for length in (1, 3, 7, 12):
        histories = torch.randint(0, 120, (50, length), generator=generator)
        tokens, scores = generate(
            whole, model.history_tokens(histories), table, beam_width=8, code_length=4
        )
        ranking = beam_search(model, histories, 8, beam_width=8, candidates=ALL)
        assert torch.equal(model.item_tokens[ranking.item_index], tokens)
        torch.testing.assert_close(ranking.score, scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["qwen3", "olmo"])
def test_a_row_alone_equals_the_row_in_a_padded_batch_of_16(architecture: str, make_model) -> None:
    model = make_model(architecture)
    generator = torch.Generator().manual_seed(2)
    histories = [
        torch.randint(0, 40, (int(size),), generator=generator).tolist()
        for size in torch.randint(1, 20, (16,), generator=generator)
    ]
    together = beam_search(model, padded(histories), 5, beam_width=7, candidates=ALL)
    for row, history in enumerate(histories):
        alone = beam_search(model, padded([history]), 5, beam_width=7, candidates=ALL)
        assert alone.item_index[0].tolist() == together.item_index[row].tolist()
        torch.testing.assert_close(alone.score[0], together.score[row])


def test_hidden_items_leave_the_others_in_their_order(make_model) -> None:
    model = make_model()
    whole = exact_search(model, padded([[3]]), 40, candidates=ALL)
    order = whole.item_index[0].tolist()
    hidden = order[:6]
    allowed = torch.ones(40, dtype=torch.bool)
    allowed[order[7]] = False
    candidates = Candidates(exclude=torch.tensor([[*hidden, hidden[0], -1]]), allowed=allowed)
    expected = [i for i in order if i not in hidden and i != order[7]][:10]
    rest = beam_search(model, padded([[3]]), 10, beam_width=40, candidates=candidates)
    assert rest.item_index[0].tolist() == expected
    exact = exact_search(model, padded([[3]]), 10, candidates=candidates)
    assert exact.item_index[0].tolist() == expected


def test_a_narrow_beam_fills_its_list_from_what_is_left(make_model) -> None:
    model = make_model()
    worst = exact_search(model, padded([[3]]), 40, candidates=ALL).item_index[0, -5:].tolist()
    allowed = torch.zeros(40, dtype=torch.bool)
    allowed[worst] = True
    ranking = beam_search(
        model, padded([[3]]), 5, beam_width=1, candidates=Candidates(allowed=allowed)
    )
    assert sorted(ranking.item_index[0].tolist()) == sorted(worst)


def test_fewer_items_than_asked_for_are_padded(make_model) -> None:
    model = make_model(num_items=3)
    ranking = beam_search(model, padded([[0]]), 5, beam_width=1000, candidates=ALL)
    assert sorted(ranking.item_index[0].tolist()) == [-1, -1, 0, 1, 2]
    assert ranking.item_index[0, 3:].tolist() == [-1, -1]
    assert (ranking.score[0, 3:] == float("-inf")).all()
    nothing = Candidates(allowed=torch.zeros(3, dtype=torch.bool))
    empty = beam_search(model, padded([[0]]), 5, beam_width=5, candidates=nothing)
    assert (empty.item_index == -1).all()
    assert (empty.score == float("-inf")).all()


@pytest.mark.parametrize("fused", [False, True])
def test_changed_weights_change_the_answer(fused: bool, make_model) -> None:
    # Fused optimisers write without raising the versions of the weights.
    model = make_model()
    model.prompt_cache = cache = PromptCache()
    before = exact_scores(model, padded(HISTORIES))
    beam_search(model, padded(HISTORIES), 5, beam_width=5, candidates=ALL)
    hits = cache.hits
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=0.1, fused=fused)
    logits, codes = model(padded(HISTORIES))
    sum(F.cross_entropy(*pair) for pair in zip(logits, codes.T, strict=True)).backward()
    optimizer.step()
    after = exact_scores(model.eval(), padded(HISTORIES))
    assert cache.hits == hits
    assert not torch.allclose(before, after, atol=1e-2)
    again = beam_search(model, padded(HISTORIES), 5, beam_width=5, candidates=ALL)
    torch.testing.assert_close(again.score, after.gather(1, again.item_index), atol=1e-4, rtol=0)
    torch.testing.assert_close(after[1], brute_force(model, HISTORIES[1]), atol=1e-4, rtol=0)
    other = make_model(seed=5).state_dict()
    model.load_state_dict({**other, "item_tokens": model.item_tokens})
    expected = brute_force(model, HISTORIES[1])
    assert not torch.allclose(after[1], expected, atol=1e-2)
    found = exact_scores(model, padded(HISTORIES))
    torch.testing.assert_close(found[1], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("use_dora", [False, True])
def test_an_adapter_is_read_into_the_weights_if_it_is_a_matrix(use_dora: bool, make_model) -> None:
    model = make_model()
    plain = exact_scores(model, padded(HISTORIES))
    model.train()  # weights that change in evaluation mode are not seen
    settings = {"r": 2, "init_lora_weights": False, "use_dora": use_dora}
    for name, target in (("default", ["q_proj"]), ("second", ["q_proj", "down_proj"])):
        adapter = LoraConfig(target_modules=target, **settings)
        inject_adapter_in_model(adapter, model.backbone, adapter_name=name)
        for layer in model.backbone.modules():
            if isinstance(layer, LoraLayer):
                layer.set_adapter(list(layer.lora_A))
    assert (read_weights(model.backbone) is None) == use_dora  # else the general path
    adapted = exact_scores(model.eval(), padded(HISTORIES))
    assert not torch.allclose(plain, adapted, atol=1e-3)
    torch.testing.assert_close(adapted[1], brute_force(model, HISTORIES[1]), atol=1e-4, rtol=0)


def test_bf16_lists_overlap_those_of_fp32(make_model) -> None:
    model = make_model(num_items=60)
    half = copy.deepcopy(model).bfloat16()
    fp32 = beam_search(model, padded(HISTORIES), 10, beam_width=10, candidates=ALL).item_index
    bf16 = beam_search(half, padded(HISTORIES), 10, beam_width=10, candidates=ALL)
    assert bf16.score.dtype == torch.float32
    shared = [
        len(set(a) & set(b)) / 10
        for a, b in zip(fp32.tolist(), bf16.item_index.tolist(), strict=True)
    ]
    assert min(shared) >= 0.7


@pytest.mark.parametrize(("architecture", "settings"), [("bert", {}), ("mamba", {"state_size": 4})])
def test_a_backbone_without_a_shareable_cache_is_refused(
    architecture: str, settings: dict, make_model
) -> None:
    model = make_model(architecture, **settings)
    with pytest.raises(ConfigError, match=f"key-value cache .* got '{architecture}'"):
        beam_search(model, padded([[1]]), 3, beam_width=3, candidates=ALL)


def test_a_history_beyond_the_attention_window_is_refused(make_model) -> None:
    model = make_model("mistral", sliding_window=16)
    assert (
        beam_search(model, padded([[1, 2]]), 3, beam_width=3, candidates=ALL).score.isfinite().all()
    )
    with pytest.raises(ConfigError, match="attention window of 16 tokens"):
        beam_search(model, padded([[1] * 9]), 3, beam_width=3, candidates=ALL)


def test_the_answer_may_be_changed_and_trained_beside(make_model) -> None:
    model = make_model()
    ranking = beam_search(model, padded([[1]]), 3, beam_width=3, candidates=ALL)
    ranking.score.zero_()
    logits, _ = model(padded([[1]]))
    sum(part.sum() for part in logits).backward()


@pytest.mark.parametrize("architecture", ["qwen3", "olmo"])
def test_autocast_around_a_search_changes_nothing(architecture: str, make_model) -> None:
    model = make_model(architecture)
    plain = beam_search(model, padded(HISTORIES), 5, beam_width=5, candidates=ALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = beam_search(model, padded(HISTORIES), 5, beam_width=5, candidates=ALL)
    assert torch.equal(plain.item_index, cast.item_index)
    torch.testing.assert_close(plain.score, cast.score)


@pytest.mark.parametrize("architecture", ["qwen3", "gpt_neox"])
def test_items_that_share_their_predicted_codes_stand_in_the_order_of_the_last(
    architecture: str, make_model
) -> None:
    model = make_model(architecture, 40, sizes=(4, 5, 3), num_predicted=2)
    tree = model.tree
    history = torch.tensor([[3, 7], [12, -1]])
    hidden = Candidates(exclude=torch.tensor([[5, 9], [0, -1]]))
    scores = exact_scores(model, history)
    for row in range(2):
        groups: dict[tuple[int, ...], list[int]] = {}
        for item in tree.items_of.tolist():  # in the order of all three codes
            groups.setdefault(tuple(model.item_tokens[item].tolist()), []).append(item)
        assert max(map(len, groups.values())) == 3
        for items in groups.values():
            assert float(scores[row, items].max() - scores[row, items].min()) < 1e-5
        first = [items[0] for items in groups.values()]
        assert scores[row, first].exp().sum().item() == pytest.approx(1, abs=1e-5)
        ordered = sorted(groups.values(), key=lambda items: -scores[row, items[0]].item())
        gone = hidden.exclude[row].tolist()
        expected = [item for items in ordered for item in items if item not in gone]
        ranking = beam_search(model, history, 45, beam_width=45, candidates=hidden)
        assert ranking.item_index[row].tolist() == expected + [-1] * (45 - len(expected))
    # A shared ID costs one beam, however many items bear it.
    narrow = beam_search(model, history, 2, beam_width=2, candidates=ALL)
    assert len(set(narrow.item_index[0].tolist())) == 2
