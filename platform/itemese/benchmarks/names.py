"""The benchmarks by name; each measures both sides of its ratios in one run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from itemese.benchmarks.rows import Row
from itemese.core.config import nearest
from itemese.core.errors import ConfigError


def _group(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    from itemese.benchmarks.group import run as run_grouping

    return run_grouping(list(sizes), repeats, storage)


def _train(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    from itemese.benchmarks.padding import benchmark_padding
    from itemese.benchmarks.train import benchmark_training
    from itemese.methods.lookup import parse_method_config

    language_model = parse_method_config({"name": "semantic_id_lm"})
    return [
        *benchmark_training(parse_method_config({"name": "sasrec"}), rounds=repeats),
        *benchmark_padding(language_model, rounds=repeats),
    ]


def _prompts(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    from typing import cast

    import numpy as np
    import pyarrow as pa
    import torch

    from itemese.benchmarks.choosing import benchmark_choosing
    from itemese.benchmarks.prompts import benchmark_prompts
    from itemese.core.randomness import numpy_generator
    from itemese.core.schema import Catalog, Request
    from itemese.methods.base import Inputs
    from itemese.methods.lookup import method_of, parse_method_config
    from itemese.methods.rsllm.network import RsllmNetwork

    draw = numpy_generator(0, "benchmarks/prompts")
    words = ["".join(draw.choice(list("aeioulnrst"), 5)) for _ in range(800)]
    titles = [" ".join(draw.choice(words, draw.integers(1, 7))) for _ in range(3000)]
    ids = [str(item) for item in range(len(titles))]
    catalog = Catalog(ids, titles, np.ones(len(ids), np.int64), pa.table({"item_id": ids}))
    # One loss and words alone: a Trainer knows neither item vectors nor a second tower.
    method = method_of(
        parse_method_config(
            {
                "name": "rsllm",
                "item_form": "text",
                "text_share": 0,
                "prompt_items": 30,
                "loss_weights": {"history_alignment": 0, "target_alignment": 0},
            }
        )
    )
    torch.manual_seed(0)
    module = cast(RsllmNetwork, method.build(Inputs(catalog, lambda: iter(())))).train()
    lengths = np.clip(draw.geometric(0.1, 512) + 1, 2, 31)
    histories = [draw.choice(len(titles), size, replace=False) for size in lengths]
    rows = [Request(h.astype(np.int32), np.zeros(len(h), np.int64), "u") for h in histories]
    prompts = []
    with torch.no_grad():
        for row in rows:
            batch = method.collate([row])
            written = module.write_training(batch["item_index"], batch["draw"])
            prompts.append((written.tokens[0], written.labels[0]))
    trained = benchmark_prompts(
        module.network.lm,
        prompts,
        lambda places: (
            method.losses(module, method.collate([rows[n] for n in places]))["language_model"].value
        ),
        [p for p in module.parameters() if p.requires_grad],
        rounds=repeats,
    )
    asked = method.collate(rows[:32])
    offered = torch.from_numpy(draw.choice(len(titles), (32, 20), replace=False))
    open_prompts = module.eval().open_prompts(asked["item_index"], asked["draw"], offered)
    answers = module.answer_tokens(offered)
    return [*trained, *benchmark_choosing(module.network, open_prompts, answers, rounds=repeats)]


def _quantize(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    from itemese.benchmarks.quantize import run as run_quantizers

    return run_quantizers(storage)


def _decode(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    from itemese.benchmarks.decode import benchmark_decoding

    return benchmark_decoding(rounds=repeats)


def _search(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    import numpy as np

    from itemese.benchmarks.search import run as run_search
    from itemese.simulation.config import SimulationConfig
    from itemese.simulation.world import World

    values = {"num_users": 200, "num_items": 400, "lengths": {"mean": 12, "max": 40}}
    true = World(SimulationConfig.parse(values), 0)
    place = {item_id: index for index, item_id in enumerate(true.item_ids)}
    items = np.array([place[item_id] for item_id in true.events(0, 200)["item_id"].to_pylist()])
    users = np.arange(true.num_users)
    lengths = true.lengths(0, true.num_users)
    histories = np.split(items, np.cumsum(lengths)[:-1])
    known = true.probabilities(users, histories)

    def objective(trial: Mapping[str, Any]) -> float:
        """Return the expected log-probability that a world of another mixture gives the next item.

        Unlike a ranking metric it has no plateaus: the true mixture alone is best.
        """
        mixture = {path.partition(".")[2]: value for path, value in trial.items()}
        supposed = World(SimulationConfig.parse(values | {"mixture": mixture}), 0)
        found = supposed.probabilities(users, histories)
        likely = known > 0
        return float((known[likely] * np.log(np.maximum(found[likely], 1e-300))).sum() / len(users))

    optimum = float((known[known > 0] * np.log(known[known > 0])).sum() / len(users))
    weight = {"kind": "uniform", "low": 1e-4, "high": 1.0, "log": True}
    parameters = {f"mixture.{name}": weight for name in ("taste", "transition", "popularity")}
    defaults: dict[str, Any] = dict.fromkeys(parameters, 1e-2)
    return run_search(storage, objective, optimum, parameters, defaults, repeats=repeats)


def _write(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    import os
    from pathlib import Path

    from itemese.benchmarks.write import benchmark_writing
    from itemese.core.artifacts import Store
    from itemese.pipeline.experiment import Experiment
    from itemese.pipeline.run import Run

    films = Path(os.environ.get("ITEMESE_DATA", "data")) / "movielens_1m"
    real = films.is_dir()
    logs = {"source": "movielens_1m", "path": str(films)} if real else {"source": "simulated"}
    experiment = Experiment.parse({"name": "w", "logs": logs, "method": {"name": "popularity"}})
    items = Run(experiment, Store(storage)).logs.folder.read_table("items.parquet")
    return benchmark_writing(items, "movies" if real else "products")


def _serve(sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    from itemese.benchmarks.serve import benchmark_latency, benchmark_scores, benchmark_throughput

    return [
        *benchmark_scores(storage, rounds=repeats),
        *benchmark_latency(storage, rounds=repeats),
        *benchmark_throughput(storage, seconds=10 * repeats),
    ]


_BY_NAME: dict[str, Callable[[Sequence[int], int, str], list[Row]]] = {
    "decode": _decode,
    "group": _group,
    "prompts": _prompts,
    "quantize": _quantize,
    "search": _search,
    "serve": _serve,
    "train": _train,
    "write": _write,
}
NAMES = tuple(_BY_NAME)


def run(name: str, *, sizes: Sequence[int], repeats: int, storage: str) -> list[Row]:
    """Run one benchmark.

    Args:
        name: ``group`` (events into histories, beside polars), ``train`` (Ray Train beside the
            bare loop, bucketed batches beside padded ones), ``quantize`` (every quantizer on one
            catalogue's vectors), ``decode`` (beam search beside Hugging Face's `generate`),
            ``prompts`` (RSLLM's training step beside a plain Hugging Face Trainer, its judging of
            20 candidates beside a pass for each),
            ``search`` (a study beside runs that share nothing, TPE beside random draws, a driver
            that is killed beside one that is not), ``serve`` (requests through HTTP beside the
            engine alone, one at a time and then many; scores beside a beam search) or ``write``
            (texts of items by a small chat model, beside `generate` one prompt at a time; the films
            of MovieLens-1M in ``$ITEMESE_DATA``, else simulated products).
        sizes: Numbers of events, for ``group``.
        repeats: Runs of each side; medians count, for ``decode`` the fastest. For ``search`` the
            number of seeds; four times as many shared trials, twice as many kills.
        storage: Scratch folder; ``quantize`` takes real vectors from there if it holds any.

    Raises:
        ConfigError: There is no benchmark of that name, or what it needs is not installed.
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
