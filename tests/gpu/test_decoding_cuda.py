"""Decoding on CUDA gives what it gives on the CPU."""

import copy
import itertools

import pytest
import torch

from exact_search import exact_scores
from itemese.backbones.backbone import BackboneConfig, build_backbone
from itemese.core.ranking import Candidates
from itemese.decoding.decoding import beam_search
from itemese.decoding.fast.prompt_cache import PromptCache
from itemese.decoding.item_language import ItemLanguageModel
from itemese.decoding.trie import PrefixTrie

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SIZES = (16, 16, 16)
STARTS = (1, 17, 33)


def make_model(architecture: str) -> ItemLanguageModel:
    torch.manual_seed(0)
    codes = torch.tensor(list(itertools.product(*map(range, SIZES))))[torch.randperm(4096)[:900]]
    config = BackboneConfig(
        architecture=architecture, dim=128, num_layers=3, num_heads=2, hidden_dim=256
    )
    backbone = build_backbone(config, 49, 256)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return ItemLanguageModel(
        backbone,
        codes + torch.tensor(STARTS),
        PrefixTrie.from_codes(codes, SIZES),
        opening=0,
        dropout=0.0,
    ).eval()


def histories() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(0, 900, (6, 40), generator=generator)
    lengths = torch.tensor([40, 1, 7, 23, 39, 12])
    return index.masked_fill(torch.arange(40) >= lengths[:, None], -1)


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2", "olmo"])
def test_cuda_equals_cpu_in_fp32(architecture: str) -> None:
    model = make_model(architecture)
    candidates = Candidates(exclude=histories())
    on_cpu = beam_search(model, histories(), 10, beam_width=30, candidates=candidates)
    exact = exact_scores(model, histories())
    cuda = copy.deepcopy(model).cuda()
    hidden = Candidates(exclude=histories().cuda())
    cache = PromptCache()
    for prompt_cache in (None, cache, cache):
        cuda.prompt_cache = prompt_cache
        on_gpu = beam_search(cuda, histories().cuda(), 10, beam_width=30, candidates=hidden)
        torch.testing.assert_close(on_gpu.score.cpu(), on_cpu.score, atol=1e-3, rtol=0)
        assert (on_gpu.item_index.cpu() == on_cpu.item_index).float().mean() > 0.98
    torch.testing.assert_close(
        exact_scores(cuda, histories().cuda()).cpu(), exact, atol=1e-3, rtol=0
    )


def test_bf16_lists_overlap_those_of_fp32() -> None:
    model = make_model("qwen3").cuda()
    index = histories().cuda()
    fp32 = beam_search(model, index, 10, beam_width=30, candidates=Candidates()).item_index
    model.bfloat16()
    bf16 = beam_search(model, index, 10, beam_width=30, candidates=Candidates()).item_index
    shared = [len(set(a) & set(b)) for a, b in zip(fp32.tolist(), bf16.tolist(), strict=True)]
    assert sum(shared) / (10 * len(shared)) >= 0.8
