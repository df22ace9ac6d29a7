"""Prompts that are kept: never a stale answer, never more bytes than allowed."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from exact_search import exact_scores
from itemese.core.errors import ConfigError
from itemese.core.ranking import Candidates
from itemese.decoding.decoding import beam_search
from itemese.decoding.fast.key_values import KeyValues
from itemese.decoding.fast.prompt_cache import PromptCache

ALL = Candidates()


def padded(histories: list[list[int]]) -> Tensor:
    longest = max(map(len, histories))
    return torch.tensor([h + [-1] * (longest - len(h)) for h in histories])


def test_a_thousand_cases_without_a_stale_answer(make_model) -> None:
    model = make_model(sizes=(6, 8))  # two codes keep a thousand searches short
    cache = PromptCache()
    fresh_model = copy.deepcopy(model)
    model.prompt_cache = cache
    draw = np.random.default_rng(0)
    users = [draw.integers(0, 40, draw.integers(1, 9)).tolist() for _ in range(12)]
    cases, reused = 0, 0
    while cases < 1000:
        event = draw.random()
        rows = draw.choice(len(users), size=draw.choice([1, 1, 2, 3]), replace=True)
        for row in rows:
            history = users[row]
            if event < 0.5:  # one more item
                history.append(int(draw.integers(40)))
            elif event < 0.7:  # an edited item
                history[draw.integers(len(history))] = int(draw.integers(40))
            elif event < 0.8 and len(history) > 1:  # a deleted item
                del history[draw.integers(len(history))]
            users[row] = history[-12:]
        if event > 0.97:  # a new model
            with torch.no_grad():
                for parameter in model.train().parameters():
                    parameter.add_(torch.randn(parameter.shape) * 0.05)
            fresh_model.load_state_dict(model.eval().state_dict())
        asked = padded([users[row] for row in rows])
        hits = cache.hits
        cached = beam_search(model, asked, 5, beam_width=6, candidates=ALL)
        fresh = beam_search(fresh_model, asked, 5, beam_width=6, candidates=ALL)
        assert torch.equal(cached.item_index, fresh.item_index)
        torch.testing.assert_close(cached.score, fresh.score, atol=1e-4, rtol=0)
        cases += len(rows)
        reused += cache.hits - hits
    assert reused > 200, "the cache must have been in use"


def test_a_returning_user_reads_only_the_newest_item(make_model) -> None:
    model = make_model()
    model.prompt_cache = cache = PromptCache()
    read: list[int] = []
    history = [1, 2, 3, 4]
    from itemese.decoding.fast.decoder import FastDecoder

    original = FastDecoder.prefill

    def counted(self, vectors, offsets, lengths, memory):  # type: ignore[no-untyped-def]
        read.append(vectors.shape[1])
        return original(self, vectors, offsets, lengths, memory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FastDecoder, "prefill", counted)
        for asked in ([1, 2, 3, 4], [*history, 5], [*history, 5], [*history, 5, 6, 7], [9]):
            beam_search(model, padded([asked]), 3, beam_width=3, candidates=ALL)
    assert read == [13, 3, 1, 6, 4]
    assert (cache.hits, cache.misses, len(cache)) == (3, 2, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train().eval(),
        lambda model: model.to(torch.float64).to(torch.float32),
        lambda model: model.load_state_dict(model.state_dict()),
        lambda model: torch.nn.ModuleList([model]).load_state_dict(
            {f"0.{name}": tensor for name, tensor in model.state_dict().items()}
        ),
    ],
    ids=["training", "conversion", "loading", "loading a module that holds it"],
)
def test_whatever_may_change_weights_drops_kept_prompts_and_the_fast_form(
    change, make_model
) -> None:
    model = make_model()
    model.prompt_cache = PromptCache()
    beam_search(model, padded([[1, 2, 3]]), 3, beam_width=3, candidates=ALL)
    fast = model.derived("decoder", lambda: None)
    assert fast is not None
    assert len(model.prompt_cache) == 1
    model.eval()  # changes nothing: it is in evaluation mode
    assert model.derived("decoder", lambda: None) is fast
    change(model)
    assert (len(model.prompt_cache), model.prompt_cache.num_bytes) == (0, 0)
    assert model.derived("decoder", lambda: None) is None


def test_in_training_mode_nothing_is_kept(make_model) -> None:
    model = make_model().train()
    model.prompt_cache = PromptCache()
    beam_search(model, padded([[1, 2, 3]]), 3, beam_width=3, candidates=ALL)
    assert len(model.prompt_cache) == 0
    assert model.derived("decoder", lambda: None) is None


def test_the_least_recently_used_prompts_leave_first() -> None:
    def memory() -> KeyValues:
        return KeyValues(torch.zeros(1, 1, 1, 4, 8), torch.zeros(1, 1, 1, 4, 8))

    size = memory().num_bytes
    cache = PromptCache(max_bytes=2 * size)
    prompts = [np.array([0, item]) for item in range(3)]
    cache.put(prompts[0], memory())
    cache.put(prompts[1], memory())
    found = cache.take(prompts[0], 1)
    assert found is not None
    assert cache.num_bytes == size
    cache.put(prompts[0], found.memory)
    cache.put(prompts[2], memory())
    assert cache.num_bytes == 2 * size
    assert cache.take(prompts[1], 1) is None
    assert cache.take(prompts[0], 1) is not None
    large = KeyValues(torch.zeros(1, 1, 1, 4, 99), torch.zeros(1, 1, 1, 4, 99))
    cache.put(np.array([7, 7]), large)
    assert len(cache) == 1
    with pytest.raises(ConfigError, match="max_bytes"):
        PromptCache(max_bytes=0)


@pytest.mark.parametrize("normalisation", ["legal", "level"])
def test_a_cached_search_does_not_disturb_exact_scores(normalisation, make_model) -> None:
    model, cache = make_model(normalisation=normalisation), PromptCache()
    before = exact_scores(model, padded([[1, 2]]))
    model.prompt_cache = cache
    for _ in range(2):
        again = beam_search(model, padded([[1, 2]]), 3, beam_width=40, candidates=ALL)
        torch.testing.assert_close(again.score, before.gather(1, again.item_index))
    assert cache.hits == 1
    torch.testing.assert_close(exact_scores(model, padded([[1, 2]])), before)
