"""Beams of a T5 against the whole model run on every item."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModel

from itemese.core.errors import ConfigError
from itemese.core.ranking import Candidates
from itemese.decoding.beams import search
from itemese.decoding.code_model import CodeModel, CodeNormalisation
from itemese.decoding.encoder_decoder import SharedMemory
from itemese.decoding.exact import score_items
from itemese.decoding.trie import PrefixTrie

SIZES = (4, 5, 3)
STARTS = (1, 5, 10)
NUM_ITEMS = 40


class Tokens(CodeModel):
    """Codes through one table, tied to the head as T5 ties it."""

    def __init__(
        self, table: Tensor, codes: Tensor, normalisation: CodeNormalisation = "legal"
    ) -> None:
        tree = PrefixTrie.from_codes(codes, SIZES)
        tokens = codes + torch.tensor(STARTS)
        super().__init__(tokens, tree, opening=0, code_normalisation=normalisation)
        self.table = table

    @property
    def token_table(self) -> Tensor:
        return self.table

    def code_logits(self, states: Tensor, level: int) -> Tensor:
        rows = self.table[STARTS[level] : STARTS[level] + SIZES[level]]
        return states * len(rows[0]) ** -0.5 @ rows.T


def make_model(architecture: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture, vocab_size=20, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=3
    )
    model = AutoModel.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def make_codes() -> Tensor:
    everything = torch.tensor(list(itertools.product(*map(range, SIZES))))
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(3))
    return everything[order[:NUM_ITEMS]]


def every_score(
    model: torch.nn.Module,
    codes: Tensor,
    prompt: Tensor,
    real: Tensor,
    normalisation: CodeNormalisation = "legal",
) -> Tensor:
    """Score each item by a full pass of the Hugging Face model over it."""
    tokens = Tokens(model.shared.weight, codes)
    written = F.pad(codes + torch.tensor(STARTS), (1, 0))[:, :-1]
    states = model(
        input_ids=prompt.expand(NUM_ITEMS, -1),
        attention_mask=real.long().expand(NUM_ITEMS, -1),
        decoder_input_ids=written,
    ).last_hidden_state
    scores = torch.zeros(NUM_ITEMS)
    for item, level in itertools.product(range(NUM_ITEMS), range(len(SIZES))):
        same = (codes[:, :level] == codes[item, :level]).all(dim=1)
        logits = tokens.code_logits(states[item, level], level)
        rivals = logits[codes[same, level].unique()] if normalisation == "legal" else logits
        scores[item] += logits[codes[item, level]] - rivals.logsumexp(0)
    return scores


@pytest.mark.parametrize(
    ("architecture", "normalisation"), [("t5", "legal"), ("mt5", "legal"), ("t5", "level")]
)
@torch.no_grad()
def test_wide_beams_equal_a_full_pass_over_every_item(
    architecture: str, normalisation: CodeNormalisation
) -> None:
    model, codes = make_model(architecture), make_codes()
    table = model.shared.weight
    prompts = torch.randint(0, 20, (3, 9), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([9, 4, 1])
    memory = SharedMemory(model, F.embedding(prompts, table), lengths, table[0])
    for _ in range(2):  # the memory serves a second search after a restart
        ranking = search(
            memory,
            Tokens(table, codes, normalisation),
            k=NUM_ITEMS,
            beam_width=NUM_ITEMS,
            candidates=Candidates(),
        )
        for row in range(3):
            real = torch.arange(9) < lengths[row]
            expected = every_score(model, codes, prompts[row : row + 1], real[None], normalisation)
            assert ranking.item_index[row].tolist() == expected.argsort(descending=True).tolist()
            best = expected.sort(descending=True).values
            torch.testing.assert_close(ranking.score[row], best, atol=1e-4, rtol=0)
        memory.restart()


@pytest.mark.parametrize("normalisation", ["legal", "level"])
@torch.no_grad()
def test_given_items_score_as_by_a_full_pass(normalisation: CodeNormalisation) -> None:
    model, codes = make_model("t5"), make_codes()
    table = model.shared.weight
    prompts = torch.randint(0, 20, (2, 9), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([9, 4])
    memory = SharedMemory(model, F.embedding(prompts, table), lengths, table[0])
    items = torch.tensor([[3, 3, 39, 0], [17, 5, 8, 21]])
    found = score_items(memory, Tokens(table, codes, normalisation), items)
    for row in range(2):
        real = torch.arange(9) < lengths[row]
        every = every_score(model, codes, prompts[row : row + 1], real[None], normalisation)
        torch.testing.assert_close(found[row], every[items[row]], atol=1e-4, rtol=0)


@torch.no_grad()
def test_another_decoder_is_refused_by_name() -> None:
    config = AutoConfig.for_model(
        "bart", vocab_size=20, d_model=16, encoder_layers=1, decoder_layers=1
    )
    model = AutoModel.from_config(config).eval()
    with pytest.raises(ConfigError, match="must be one of t5, mt5"):
        SharedMemory(model, torch.zeros(1, 2, 16), torch.tensor([2]), torch.zeros(16))
