"""The benchmarks by name; each measures both sides of its ratios in one run."""

from collections.abc import Callable, Sequence
from typing import Any

from itemese.config import nearest
from itemese.errors import ConfigError

Row = dict[str, Any]
"""``name``, ``value``, ``unit``, ``bar`` and ``holds``; the last two may be None."""


def _group(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    from itemese.sequences.benchmark import run as run_grouping

    return run_grouping(list(sizes), repeats, storage)


def _train(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    from itemese.methods.base import parse_method_config
    from itemese.training.benchmark import benchmark_training
    from itemese.training.padding_benchmark import benchmark_padding

    language_model = parse_method_config({"name": "semantic_id_lm"})
    return [
        *benchmark_training(parse_method_config({"name": "sasrec"}), rounds=repeats),
        *benchmark_padding(language_model, rounds=repeats),
    ]


def _quantize(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    from itemese.codebooks.benchmark import run as run_quantizers

    return run_quantizers(storage)


def _decode(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    from itemese.codebooks.trie import PrefixTrie
    from itemese.models.decoding_benchmark import benchmark_decoding

    return benchmark_decoding(PrefixTrie.from_codes, rounds=repeats)


def _serve(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    from itemese.serving.benchmark import benchmark_serving

    return benchmark_serving(storage, rounds=repeats)


_BY_NAME: dict[str, Callable[[Sequence[int], int, str], list[Row]]] = {
    "decode": _decode,
    "group": _group,
    "quantize": _quantize,
    "serve": _serve,
    "train": _train,
}
NAMES = tuple(_BY_NAME)


def run(name: str, *, sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    """Run one benchmark.

    Args:
        name: ``group`` (events into histories, beside polars), ``train`` (Ray Train beside the
            bare loop, bucketed batches beside padded ones), ``quantize`` (every quantizer on one
            catalogue's vectors), ``decode`` (beam search beside Hugging Face's `generate`) or
            ``serve`` (requests through HTTP beside the engine alone).
        sizes: Numbers of events, for ``group``.
        repeats: Runs of each side; medians count, for ``decode`` the fastest.
        storage: Scratch folder; ``quantize`` takes real vectors from there if it holds any.

    Raises:
        ConfigError: There is no benchmark of that name.
    """
    if name not in _BY_NAME:
        message = f"`benchmark` must be a known name; got {name!r}. {nearest(name, NAMES)}"
        raise ConfigError(message)
    return _BY_NAME[name](sizes, repeats, storage)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text."""
    cells = [["name", "value", "unit", "bar", "holds"]]
    for row in rows:
        bar = "" if row["bar"] is None else f"{row['bar']:g}"
        holds = {None: "", True: "yes", False: "NO"}[row["holds"]]
        cells.append([row["name"], f"{row['value']:,.4g}", row["unit"], bar, holds])
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(line.rstrip() for line in lines)
