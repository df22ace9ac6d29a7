"""Prompts continued in a batch: the same tokens as Transformers' own loop writes one by one."""

from collections import Counter
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from itemese.knowledge.generation import Continuation, Sampling, can_continue

BEGIN = [7, 3, 9, 11, 5]
PROMPTS = [
    [*BEGIN, 1],
    [*BEGIN, 4, 4, 20, 8],
    [*BEGIN, 4, 6],
    [*BEGIN, 30, 2, 2, 19, 17, 40, 12],
]
LONGEST = 9


def model_of(kind: str = "llama", **more: Any) -> Any:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 48}
    config = AutoConfig.for_model(kind, **sizes, **more, initializer_range=0.3)
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> Any:
    more = {"intermediate_size": 64, "num_key_value_heads": 2} if request.param == "llama" else {}
    return model_of(request.param, **more)


def one_by_one(model: Any, prompt: list[int], ends: list[int]) -> list[int]:
    given = torch.tensor([prompt])
    out = model.generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=LONGEST,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def never(model: Any) -> int:
    """Return a token that no prompt's continuation has."""
    said = [token for prompt in PROMPTS for token in one_by_one(model, prompt, [47])]
    return next(token for token in range(48) if token not in said)


def test_a_batch_writes_what_generate_writes_one_by_one(model: Any) -> None:
    end = never(model)
    continuation = Continuation(model, frozenset({end}), Sampling())
    expected = [one_by_one(model, prompt, [end]) for prompt in PROMPTS]
    assert all(len(said) == LONGEST for said in expected)
    assert continuation.write(PROMPTS, LONGEST) == expected
    assert continuation.write(PROMPTS[:2], LONGEST) == expected[:2]  # the beginning is known
    assert continuation.write([[2, 2], [5]], LONGEST) == [
        one_by_one(model, prompt, [end]) for prompt in ([2, 2], [5])
    ]


def test_rows_that_end_leave_the_others_as_they_are(model: Any) -> None:
    whole = [one_by_one(model, prompt, [never(model)]) for prompt in PROMPTS]
    counts = Counter(token for said in whole for token in set(said))
    end = min(counts, key=lambda token: (counts[token] != 1, whole[0].count(token)))
    said = Continuation(model, frozenset({end}), Sampling()).write(PROMPTS, LONGEST)
    assert said == [one_by_one(model, prompt, [end]) for prompt in PROMPTS]
    assert len({len(one) for one in said}) > 1


def test_a_line_ends_a_text_that_has_begun(model: Any) -> None:
    said = Continuation(model, frozenset(), Sampling()).write(PROMPTS, LONGEST)[3]
    later = next(n for n, token in enumerate(said) if token != said[0])
    for token, expected in ((said[later], said[: later + 1]), (said[0], None)):
        lines = Continuation(model, frozenset(), Sampling(), frozenset({token}))
        found = lines.write(PROMPTS, LONGEST)[3]
        assert found == expected or (expected is None and len(found) > later), "no empty first line"


def test_a_line_after_blanks_alone_ends_nothing(model: Any) -> None:
    said = Continuation(model, frozenset(), Sampling()).write(PROMPTS, LONGEST)[3]
    later = next(n for n, token in enumerate(said) if token != said[0])
    lines, blanks = frozenset({said[later]}), frozenset(said[:later])
    assert (
        Continuation(model, frozenset(), Sampling(), lines).write(PROMPTS, LONGEST)[3]
        == (said[: later + 1])
    )
    found = Continuation(model, frozenset(), Sampling(), lines, blanks).write(PROMPTS, LONGEST)[3]
    assert found[: later + 2] == said[: later + 2]
    assert len(found) > later + 1


def test_draws_depend_on_prompt_and_seed_and_not_on_the_batch(model: Any) -> None:
    drawn = Continuation(model, frozenset(), Sampling(temperature=1.5, top_p=0.9, seed=4))
    together = drawn.write(PROMPTS, LONGEST)
    assert together[::-1] == drawn.write(PROMPTS[::-1], LONGEST)
    assert [drawn.write([prompt], LONGEST)[0] for prompt in PROMPTS] == together
    other = Continuation(model, frozenset(), Sampling(temperature=1.5, top_p=0.9, seed=5))
    assert other.write(PROMPTS, LONGEST) != together
    greedy = Continuation(model, frozenset(), Sampling()).write(PROMPTS, LONGEST)
    least = Continuation(model, frozenset(), Sampling(temperature=1.0, top_p=1e-6))
    assert least.write(PROMPTS, LONGEST) == greedy


def test_draws_have_the_models_probabilities() -> None:
    model = model_of(intermediate_size=64)
    temperature, prompt = 0.7, PROMPTS[1]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1] / temperature
    found = Counter(
        Continuation(model, frozenset(), Sampling(temperature, 1.0, seed)).write([prompt], 1)[0][0]
        for seed in range(400)
    )
    expected = logits.softmax(-1)
    for token in expected.topk(5).indices.tolist():
        share = expected[token].item()
        assert abs(found[token] / 400 - share) < 4 * (share * (1 - share) / 400) ** 0.5


def test_models_with_windows_are_left_to_generate() -> None:
    assert can_continue(model_of(intermediate_size=64))
    windowed = model_of("mistral", intermediate_size=64, sliding_window=4, num_key_value_heads=2)
    assert not can_continue(windowed)
