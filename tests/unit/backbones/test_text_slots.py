"""The slots are a bottleneck: what writes the text again sees them and never the text."""

import pytest
import torch

from itemese.backbones.text_backbone import TextBackboneConfig, build_text_backbone
from itemese.backbones.text_slots import TextSlots, _Layout
from itemese.core.errors import ConfigError

VOCABULARY, WINDOW, SLOTS = 40, 8, 2
TEXTS = torch.tensor(
    [
        [5, 6, 7, 1, -1, -1, -1, -1],
        [8, 9, 1, -1, -1, -1, -1, -1],
        [10, 11, 12, 13, 14, 15, 16, 1],
    ]
)


def built(mask, layers=2, architecture="qwen3", texts=TEXTS):
    torch.manual_seed(0)
    config = TextBackboneConfig(
        dim=32, num_layers=layers, num_heads=2, hidden_dim=64, architecture=architecture
    )
    lm = build_text_backbone(config, VOCABULARY, 2 * WINDOW + SLOTS)
    kept = torch.zeros(4, dtype=torch.uint8)
    return TextSlots(lm, texts, kept, num_slots=SLOTS, mask=mask).eval()


def blind(monkeypatch):
    """Fix the slots: take the text out of their sight."""
    whole = _Layout.mask

    def cut(self, **which):
        seen = whole(self, **which).clone()
        seen[:, self.width : self.width + SLOTS, : self.width] = False
        return seen

    monkeypatch.setattr(_Layout, "mask", cut)


def again_with_other_text(module, monkeypatch):
    """Return the logits of writing text 2 again after reading text 2, and after reading another."""
    own = module.write_again(TEXTS[2:])[0]
    read = module._words

    def other(tokens):  # what is written again is one token shorter, and stays
        return read(tokens.flip(1) if tokens.shape[1] == WINDOW else tokens)

    monkeypatch.setattr(module, "_words", other)
    return own, module.write_again(TEXTS[2:])[0]


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2", "llama"])
def test_with_the_slots_fixed_no_text_reaches_what_is_written_again(architecture, monkeypatch):
    module = built("cascaded", architecture=architecture)
    blind(monkeypatch)
    own, other = again_with_other_text(module, monkeypatch)
    torch.testing.assert_close(own, other)


def test_without_the_mask_the_text_reaches_it(monkeypatch):
    module = built("none")
    blind(monkeypatch)
    own, other = again_with_other_text(module, monkeypatch)
    assert (own - other).abs().max() > 1e-3


def test_the_text_reaches_it_through_the_slots(monkeypatch):
    own, other = again_with_other_text(built("cascaded"), monkeypatch)
    assert (own - other).abs().max() > 1e-4


@pytest.mark.parametrize("mask", ["cascaded", "two_pass"])
def test_a_slot_vector_is_what_the_text_is_written_from(mask, monkeypatch):
    """No vector is clustered that the reconstruction does not depend on."""
    module = built(mask)
    seen = []
    states = module._slot_states

    def keep(*args):
        found = states(*args)
        found.retain_grad()
        seen.append(found)
        return found

    monkeypatch.setattr(module, "_slot_states", keep)
    if mask == "two_pass":
        module.write_again(TEXTS)[0].sum().backward()
        grad = seen[0].grad
    else:  # the same states, on their way into the last layer
        layer = module.lm.base_model.layers[-1]
        entering = []
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: entering.append(args[0]), with_kwargs=True
        )
        module.encode(TEXTS)
        vectors = seen[0]
        torch.testing.assert_close(entering[0][:, WINDOW:], vectors)
        entering.clear()
        logits, _ = module.write_again(TEXTS)
        torch.testing.assert_close(entering[0][:, WINDOW : WINDOW + SLOTS], vectors)
        grad = torch.autograd.grad(logits.square().sum(), entering[0])[0][
            :, WINDOW : WINDOW + SLOTS
        ]
    assert (grad.abs().amax(dim=2) > 0).all(), "each slot of each text"


@pytest.mark.parametrize("mask", ["cascaded", "two_pass", "none"])
def test_padding_changes_no_vector_and_no_logit(mask):
    module = built(mask)
    together = module.encode(TEXTS)
    for row in range(len(TEXTS)):
        torch.testing.assert_close(module.encode(TEXTS[row : row + 1])[0], together[row])
    logits, labels = module.write_again(TEXTS)
    alone = [module.write_again(TEXTS[row : row + 1]) for row in range(len(TEXTS))]
    torch.testing.assert_close(torch.cat([one for one, _ in alone]), logits)
    assert torch.equal(torch.cat([one for _, one in alone]), labels)
    assert labels.tolist() == TEXTS[TEXTS >= 0].tolist()


def test_the_length_of_a_text_moves_nothing():
    layout = _Layout(TEXTS, SLOTS, WINDOW)
    assert layout.places[0].tolist() == [*range(8), 8, 9, *range(10, 17)]
    short = _Layout(TEXTS[:1, :4], SLOTS, WINDOW)
    assert short.places[0].tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("mask", ["cascaded", "two_pass"])
def test_training_writes_texts_again_from_their_slots(mask):
    module = built(mask).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for _ in range(150):
        logits, labels = module.write_again(TEXTS)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # From the words before alone, the first word of three texts cannot be known: log(3) / 3 texts.
    first = labels.new_tensor([0, 4, 7])
    assert logits[first].argmax(dim=1).tolist() == [5, 8, 10]
    vectors = module.eval().items()
    assert torch.equal(vectors, module.items())
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    with torch.no_grad():
        module.train().slots.add_(1.0)  # weights change in training mode only
    assert not torch.equal(vectors, module.eval().items()), "stale vectors"


def test_one_layer_reads_no_slot_in_the_same_pass():
    with pytest.raises(ConfigError, match="num_layers` must be at least 2"):
        built("cascaded", layers=1)
    built("two_pass", layers=1)
