"""The task of choosing one of a few offered items, for any trained method.

What is offered is drawn once and stored as an artifact of its own, so that every method, seed and
setting on the same data meets the same candidates.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from itemese.core.artifacts import Artifact, Counts, Folder, Store
from itemese.core.errors import ConfigError
from itemese.core.schema import Catalog, Histories, Split
from itemese.evaluation.choosing import ask
from itemese.evaluation.offers import Offers, OffersConfig, choice_figures, paired_choices
from itemese.evaluation.rows import Rows, rows_of, sample
from itemese.methods.lookup import method_of
from itemese.methods.rsllm.network import RsllmNetwork
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.result import restored
from itemese.pipeline.run import Run
from itemese.prompts.titles import clean_titles, contained
from itemese.prompts.tokenizer import TextTokenizer


def draw_offers(experiment: Experiment, store: Store, config: OffersConfig) -> Artifact:
    """Draw and store what each test user is offered; only data and `config` decide it."""
    sequences = Run(experiment, store).sequences

    def build(out: Folder) -> Counts:
        catalog = Catalog.read(sequences.folder)
        rows = _asked(sequences.folder, catalog, config, experiment.data_seed, longest=1)
        offers = Offers.draw(
            rows, num_items=catalog.num_items, size=config.size, seed=experiment.data_seed
        )
        offers.write(out)
        titles = clean_titles(catalog.titles, catalog.item_ids)
        within = sum(contained([titles[i] for i in row]) > 0 for row in offers.offered)
        return {"users": rows.num_users, "users_with_title_in_title": within}

    return store.stage(
        "offers",
        version=1,
        config=config,
        inputs={"sequences": sequences, "data_seed": str(experiment.data_seed)},
        build=build,
    )


def choose(experiment: Experiment, store: Store, config: OffersConfig) -> Artifact:
    """Let the trained method choose; the artifact holds selection.json and choices.parquet.

    Args:
        experiment: What is trained, or was.
        store: Where artifacts live.
        config: Who is asked, and how much is offered.

    Returns:
        The artifact; ``selection.json`` has ``users``, ``users_with_title_in_title``, for a method
        that reads cut titles ``users_with_answer_in_answer``, and for each way of choosing
        `choice_figures`; ``choices.parquet`` has a row a user and way.
    """
    run = Run(experiment, store)
    model = run.final
    offers = draw_offers(experiment, store, config)

    def build(out: Folder) -> Counts:
        artifacts = run.models
        table, facts = _ask(experiment, artifacts, offers, config)
        out.write_table("choices.parquet", table)
        modes = table["mode"].unique().to_pylist()
        figures = {}
        for mode in modes:
            of_mode = table.filter(pa.compute.equal(table["mode"], mode))
            chosen, target = of_mode["chosen"].to_numpy(), of_mode["target"].to_numpy()
            figures[mode] = choice_figures(chosen == target, chosen >= 0)
        result = {"name": experiment.name, **offers.counts, **facts, "figures": figures}
        out.write_json("selection.json", result)
        return {f"{m}/hit@1": f["hit@1"]["value"] for m, f in figures.items()}

    return store.stage(
        "selection",
        version=1,
        config=experiment,
        inputs={"model": model, "offers": offers, **run.ancestors},
        build=build,
    )


def choose_all(
    experiments: Sequence[Experiment], store: Store, config: OffersConfig
) -> list[Artifact]:
    """Let several methods choose, all of them among the same items; see `choose`.

    Raises:
        ConfigError: Two have one name, or their users are offered different items.
    """
    offered: dict[str, str] = {}
    for experiment in experiments:
        if experiment.name in offered:
            message = (
                f"`name` must differ between recipes; got {experiment.name!r} twice. Rename one."
            )
            raise ConfigError(message)
        offered[experiment.name] = draw_offers(experiment, store, config).key
        if len(set(offered.values())) > 1:
            message = (
                f"`recipes` must be offered the same items; got others for {experiment.name!r} "
                f"than for {experiments[0].name!r}. Give them one data set, split and data_seed."
            )
            raise ConfigError(message)
    return [choose(experiment, store, config) for experiment in experiments]


def differences(chosen: Sequence[Artifact]) -> list[dict[str, Any]]:
    """Test every way of choosing of each run but the first against the first run.

    Args:
        chosen: From `choose_all`.

    Returns:
        One ``{"name", "baseline", "difference", "low", "high", "p_value", "p_holm"}`` a run and
        way. The baseline is the first run's same way, or where it has none its ranking.
    """
    results = [one.folder.read_json("selection.json") for one in chosen]
    pairs, against = {}, {}
    for one, result in zip(chosen[1:], results[1:], strict=True):
        for mode in result["figures"]:
            way = mode if mode in results[0]["figures"] else "ranked"
            name = f"{result['name']}, {mode}"
            against[name] = f"{results[0]['name']}, {way}"
            pairs[name] = hits(chosen[0], way), hits(one, mode)
    return [{**test, "baseline": against[test["name"]]} for test in paired_choices(pairs)]


def named(chosen: Artifact, mode: str) -> np.ndarray:
    """Return ``[N] bool``: which users were given one of their candidates, in the offers' order."""
    found: np.ndarray = _choices(chosen, mode)["chosen"].to_numpy() >= 0
    return found


def hits(chosen: Artifact, mode: str) -> np.ndarray:
    """Return ``[N] bool``: which users' targets were chosen in a mode, in the offers' order."""
    table = _choices(chosen, mode)
    found: np.ndarray = table["chosen"].to_numpy() == table["target"].to_numpy()
    return found


def _choices(chosen: Artifact, mode: str) -> pa.Table:
    """Return what was chosen in a mode, a row a user."""
    table = chosen.folder.read_table("choices.parquet")
    return table.filter(pa.compute.equal(table["mode"], mode))


def _ask(
    experiment: Experiment,
    artifacts: dict[str, Artifact],
    offers: Artifact,
    config: OffersConfig,
) -> tuple[pa.Table, dict[str, int]]:
    """Return a row for each way of choosing and user: mode, user_id, target, chosen, text.

    And what is to be said of the candidates as this method reads them.
    """
    method, folder = method_of(experiment.method), artifacts["sequences"].folder
    catalog, stored = Catalog.read(folder), Offers.read(offers.folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = restored(experiment, method, artifacts, "model")
    longest = experiment.method.max_history
    rows = _asked(folder, catalog, config, experiment.data_seed, longest=longest)
    chosen = ask(method, module.to(device), rows, stored, device=device)
    table = pa.table(
        {
            "mode": [way for way in chosen for _ in stored.user_id],
            "user_id": stored.user_id * len(chosen),
            "target": np.tile(stored.target, len(chosen)),
            "chosen": np.concatenate([found.item_index for found in chosen.values()]),
            "text": pa.array([t for found in chosen.values() for t in found.text], pa.string()),
        }
    )
    if not isinstance(module, RsllmNetwork):
        return table, {}
    return table, {"users_with_answer_in_answer": answers_within(module, stored.offered)}


def answers_within(module: RsllmNetwork, offered: np.ndarray) -> int:
    """Return how many users are offered an answer that holds another, or equals it, as it is cut.

    Args:
        module: Names items by the words that it reads of their titles.
        offered: ``[N, C]`` item_index.
    """
    tokenizer = TextTokenizer.from_tensor(module.get_buffer("tokenizer"))
    items = torch.from_numpy(np.unique(offered)).to(module.get_buffer("tokenizer").device)
    answers = module.answer_tokens(items[None])[0].tolist()
    words = {
        item: tokenizer.decode([t for t in answer if t >= 0])
        for item, answer in zip(items.tolist(), answers, strict=True)
    }
    return sum(contained([words[item] for item in row]) > 0 for row in offered.tolist())


def _asked(
    sequences: Folder, catalog: Catalog, config: OffersConfig, seed: int, *, longest: int
) -> Rows:
    """Return the test users who are asked, whatever the sharding."""
    nobody = Rows([], [], [], np.empty(0, np.int64), np.empty(0, np.int64))
    blocks = Histories.stream(sequences)
    parts = (rows_of(block, Split.TEST, catalog.num_items, longest) for block in blocks)
    most = config.max_users or 2**62
    return sample(parts, nobody, max_users=most, seed=seed)


def table(results: list[dict[str, Any]]) -> str:
    """Return the figures of several runs as lines of text."""
    head = f"{'run':28s} {'chosen by':11s} {'hit@1':24s} {'hit@1 of valid':24s} {'valid':24s}"
    lines = [head]
    for result in results:
        for mode, figures in result["figures"].items():
            cells = [
                f"{f['value']:.4f} [{f['low']:.4f}, {f['high']:.4f}]" for f in figures.values()
            ]
            lines.append(f"{result['name']:28s} {mode:11s} " + " ".join(f"{c:24s}" for c in cells))
    users, within = results[0]["users"], results[0]["users_with_title_in_title"]
    lines.append(f"{users} users, the same candidates; {within} with a title inside another")
    lines += [
        f"{result['users_with_answer_in_answer']} with one as {result['name']} cuts titles"
        for result in results
        if "users_with_answer_in_answer" in result
    ]
    return "\n".join(lines)
