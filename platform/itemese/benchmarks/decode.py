"""Decoding against the field's default, both in one run and with the same lists.

A 10M-parameter decoder (8 layers of 320) with random weights, 12,101 random items of 4 x 256 codes,
fp32, one thread. Times are those of the thread's processor, so that other work on the machine does
not count, and the least of several rounds in which both sides take turns. Where there is a CUDA
device, the rows of `decoding_benchmark_cuda` follow.

Shapes: B users, S prompt tokens, W beams, L code length, V vocabulary, I items.
"""

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PrefixConstrainedLogitsProcessor

from itemese.benchmarks import decode_costs as decoding_costs
from itemese.benchmarks.decode_baseline import PrefixTable, causal_model, generate, prefix_table
from itemese.benchmarks.decode_model import random_codes, random_model
from itemese.benchmarks.rows import Row, figure
from itemese.core.randomness import torch_generator
from itemese.core.ranking import Candidates, Ranking
from itemese.decoding.beams import child_log_probs
from itemese.decoding.decoding import beam_search
from itemese.decoding.fast.prompt_cache import PromptCache
from itemese.decoding.item_language import ItemLanguageModel
from itemese.decoding.trie import PrefixTrie

NUM_ITEMS = 12_101
CODE_SIZES = (256, 256, 256, 256)
LARGE_VOCABULARY = 151_936
"""Qwen3's."""

CASES = ((50, 10, 7.0, 15.0), (200, 50, 60.0, 180.0))
"""Items of the history, beams, times as fast as `generate` without and with prefix reuse."""

FLOOR_BAR = 60.0
"""Per cent of the core's matrix products that a search without reuse should reach."""

STEP_BAR = 200.0
"""Times as fast as the dictionary's mask and top-k at a large vocabulary."""

OVERLAP_PROMPTS = 12


def benchmark_decoding(*, rounds: int = 3, seed: int = 0) -> list[Row]:
    """Measure every figure of decoding.

    Args:
        rounds: Turns of both sides; the least time counts.
        seed: Of weights, items and histories.

    Returns:
        Rows ``{"name", "value", "unit", "bar", "holds"}``; times in milliseconds of one core.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = small_model(seed=seed)
        lists: list[Ranking] = []
        rows = []
        for num_items, width, bar, reuse_bar in CASES:
            bars = (bar, reuse_bar)
            rows += _against_generate(model, num_items, width, bars, rounds, lists)
        rows += _step_rows(model.tree, rounds)
        rows.append(_bf16_overlap(model, lists, seed))
        rows.append(_illegal(lists))
    finally:
        torch.set_num_threads(threads)
    if torch.cuda.is_available():
        from itemese.benchmarks.decode_cuda import benchmark_cuda

        rows += benchmark_cuda(rounds=rounds, seed=seed)
    return rows


def small_model(*, seed: int) -> ItemLanguageModel:
    """Return the 10M-parameter model of the benchmark."""
    return random_model(
        random_codes(NUM_ITEMS, CODE_SIZES, seed=seed),
        CODE_SIZES,
        seed=seed,
        hidden_size=320,
        num_hidden_layers=8,
        num_attention_heads=5,
        num_key_value_heads=5,
        head_dim=64,
        intermediate_size=864,
    )


def _against_generate(
    model: ItemLanguageModel,
    num_items: int,
    width: int,
    bars: tuple[float, float],
    rounds: int,
    lists: list[Ranking],
) -> list[Row]:
    """Measure `generate`, a search, and a search by a user who comes back, on one history."""
    name = f"{4 * num_items}_tokens_{width}_beams"
    draw = torch_generator(num_items, "decoding/benchmark/history")
    history = torch.randint(0, NUM_ITEMS, (1, num_items), generator=draw)
    whole, table = causal_model(model), prefix_table(model.item_tokens)
    prompt = model.history_tokens(history)
    everything = Candidates()

    def ours(shown: Tensor) -> Ranking:
        return beam_search(model, shown, width, beam_width=width, candidates=everything)

    times: dict[str, list[float]] = {"generate": [], "search": [], "reuse": []}
    tokens = torch.empty(0)
    for _ in range(rounds):
        seconds, (tokens, _) = _timed(
            lambda: generate(whole, prompt, table, beam_width=width, code_length=4)
        )
        times["generate"].append(seconds)
        for _ in range(5):
            model.prompt_cache = None
            seconds, plain = _timed(partial(ours, history))
            times["search"].append(seconds)
            model.prompt_cache = PromptCache()
            ours(history[:, :-1])  # an earlier visit, with one item less
            seconds, again = _timed(partial(ours, history))
            times["reuse"].append(seconds)
            lists += [plain, again]
    model.prompt_cache = None
    same = [_overlap(tokens, model.item_tokens[r.item_index]) for r in lists[-2:]]
    best = {side: 1000 * min(seconds) for side, seconds in times.items()}
    shape = decoding_costs.DecoderShape.of(model.backbone.config)
    rate = gemm_rate(shape, len(prompt[0]))
    rows = [figure(f"decode/{name}/{side}", value, "ms") for side, value in best.items()]
    for side, bar in zip(("search", "reuse"), bars, strict=True):
        rows.append(
            figure(f"decode/{name}/{side}_speedup", best["generate"] / best[side], "x", least=bar)
        )
    rows.append(figure(f"decode/{name}/same_lists", 100 * min(same), "%", least=100.0))
    rows.append(figure(f"decode/{name}/core_gemm_rate", rate / 1e9, "GFLOP/s"))
    for side, cached in (("search", 0), ("reuse", len(prompt[0]) - 4)):
        work = decoding_costs.passes(shape, len(prompt[0]), width, 4, cached=cached)
        floor = 1000 * sum(one.flops for one in work) / rate
        bar_here = FLOOR_BAR if side == "search" else None
        rows.append(
            figure(
                f"decode/{name}/{side}_share_of_floor",
                100 * floor / best[side],
                "%",
                least=bar_here,
            )
        )
    return rows


def gemm_rate(shape: decoding_costs.DecoderShape, tokens: int) -> float:
    """Return this thread's FLOP/s in products of the model's own shapes, without anything else."""
    qkv = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim
    maps = [(shape.dim, qkv), (shape.num_heads * shape.head_dim, shape.dim)]
    maps += [(shape.dim, 2 * shape.hidden_dim), (shape.hidden_dim, shape.dim)]
    seconds, flops = 0.0, 0
    for into, out in maps:
        states, weight = torch.randn(tokens, into), torch.randn(out, into)
        seconds += min(_timed(partial(F.linear, states, weight))[0] for _ in range(20))
        flops += 2 * tokens * into * out
    return flops / seconds


def _step_rows(tree: PrefixTrie, rounds: int) -> list[Row]:
    """Measure the mask and top-k of one step at a large vocabulary, 50 beams at depth 1."""
    width, start = 50, 1000
    nodes = torch.arange(1, 1 + width)[None]
    codes = tree.code[nodes[0]]
    draw = torch_generator(0, "decoding/benchmark/logits")
    logits = torch.randn(width, LARGE_VOCABULARY, generator=draw)
    child, code = tree.children(nodes, 1)
    table: PrefixTable = {
        (int(codes[beam]),): (start + code[0, beam][child[0, beam] >= 0]).tolist()
        for beam in range(width)
    }
    written = codes[:, None]
    processor = PrefixConstrainedLogitsProcessor(lambda _, t: table[tuple(t.tolist())], width)

    def by_dictionary() -> Tensor:
        masked: Tensor = processor(written, logits)
        return masked.view(-1).topk(width).indices

    def by_tree() -> Tensor:
        rows = logits[None, :, start : start + CODE_SIZES[1]]
        return child_log_probs(tree, nodes, rows, 1, "legal")[1].view(-1).topk(width).indices

    with torch.inference_mode():
        slow = min(_timed(by_dictionary)[0] for _ in range(3 * rounds))
        fast = min(_timed(by_tree)[0] for _ in range(100 * rounds))
    return [
        figure("decode/step_152k_vocabulary/dictionary", 1000 * slow, "ms"),
        figure("decode/step_152k_vocabulary/tree", 1000 * fast, "ms"),
        figure("decode/step_152k_vocabulary/speedup", slow / fast, "x", least=STEP_BAR),
    ]


def _bf16_overlap(model: ItemLanguageModel, lists: list[Ranking], seed: int) -> Row:
    """Return the mean share of fp32's beam that bf16 keeps, 200 tokens and 50 beams."""
    half = copy.deepcopy(model).bfloat16()
    draw = torch_generator(seed, "decoding/benchmark/overlap")
    shares = []
    for _ in range(OVERLAP_PROMPTS):
        history = torch.randint(0, NUM_ITEMS, (1, 50), generator=draw)
        both = [
            beam_search(one, history, 50, beam_width=50, candidates=Candidates())
            for one in (model, half)
        ]
        lists += both
        kept = set(both[0].item_index[0].tolist()) & set(both[1].item_index[0].tolist())
        shares.append(len(kept) / 50)
    return figure("decode/bf16_overlap", 100 * sum(shares) / len(shares), "%")


def _illegal(lists: list[Ranking]) -> Row:
    """Return the share of outputs that are no item, or an item twice in a list; must be 0."""
    total = bad = 0
    for ranking in lists:
        for items in ranking.item_index.tolist():
            total += len(items)
            bad += len(items) - len({item for item in items if 0 <= item < NUM_ITEMS})
    share = 100 * bad / total
    return figure("decode/illegal_outputs", share, "%", most=0.0)


def _overlap(left: Tensor, right: Tensor) -> float:
    """Return the share of rows of ``left [1, W, L]`` that stand at the same place in `right`."""
    return (left == right).all(dim=2).float().mean().item()


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of this thread's processor, and the result."""
    before = time.thread_time()
    result = work()
    return time.thread_time() - before, result
