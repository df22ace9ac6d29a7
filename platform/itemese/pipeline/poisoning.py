"""What a few fake users can do: how much more often the items that they push are then shown.

Source: L. Ning, W. Fan and Q. Li, "Exploring Backdoor Attack and Defense for LLM-empowered
    Recommendations", arXiv 2504.11182v1 (BadRec): a trigger in titles and 1 % of fake users.
Differs: no particular model is attacked. Some rare items, the carriers, get the trigger into
    their titles and into every third place of the fake histories; one more rare item has the
    trigger only, which moves methods that read titles and no others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from itemese.core.artifacts import Artifact, Folder, Store
from itemese.core.config import Config
from itemese.core.errors import ConfigError, DataError
from itemese.core.randomness import numpy_generator
from itemese.core.schema import INTERACTIONS, Catalog
from itemese.evaluation.judged import Judged
from itemese.evaluation.significance import paired_difference
from itemese.evaluation.tasks.lookup import read_judged
from itemese.evaluation.tasks.next_item import Ranked
from itemese.logs.config import LogsConfig
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run

_EVERY = 3
_LEAST_EVENTS = 5


class PoisonConfig(Config):
    """The attack.

    Attributes:
        share: Fake users, of the users there are.
        trigger: Appended to titles.
        num_carriers: Items that the fakes push.
        length: Events of a fake.
        cutoff: K of the exposure: lists are looked at so far down.
    """

    share: float = Field(default=0.01, gt=0, le=1)
    trigger: str = Field(default="limited collector edition", min_length=1)
    num_carriers: int = Field(default=20, ge=1)
    length: int = Field(default=12, ge=3)
    cutoff: int = Field(default=10, ge=1)


@dataclass(frozen=True)
class Attack:
    """What was done to a log.

    Attributes:
        carriers: item_ids that the fakes push.
        silent: item_id whose title alone was changed.
        fakes: How many users were added.
    """

    carriers: tuple[str, ...]
    silent: str
    fakes: int


def measure(experiment: Experiment, store: Store, config: PoisonConfig) -> dict[str, Any]:
    """Train on the log as it is and with the fakes, and compare what honest users are shown.

    Args:
        experiment: What is attacked.
        store: Holds both runs.
        config: The attack.

    Returns:
        ``fakes``; ``carriers`` and ``silent``, each ``{"clean", "poisoned"}``: the share of honest
        users' test requests whose first K items hold one of them; and ``ndcg@10`` with
        ``difference`` and its interval, poisoned less clean, over honest users.

    Raises:
        ConfigError: The experiment ranks no catalogue.
        DataError: The log has too few rare items.
    """
    if not experiment.task.ranks_catalogue:
        message = (
            "`method.task` must be next_item, because lists are attacked; got "
            f"{experiment.task.name}. Leave it out."
        )
        raise ConfigError(message)
    logs = Run(experiment, store).logs
    folder = store.root.child(f"poisoned/{logs.key}-{config.digest()}")
    attack = poison(logs, folder, config, seed=experiment.data_seed)
    place = LogsConfig(source="parquet", path=folder.uri, duplicates="keep")
    poisoned = experiment.model_copy(update={"logs": place, "name": f"{experiment.name}_poisoned"})
    runs = [Run(one, store) for one in (experiment, poisoned)]
    clean, dirty = _same_requests(*(read_judged(run.evaluated.folder) for run in runs))
    catalogs = [Catalog.read(run.sequences.folder) for run in runs]
    sides = (("clean", clean, catalogs[0]), ("poisoned", dirty, catalogs[1]))
    shown = {
        name: {
            label: _exposed(rows, catalog, items, config.cutoff) for label, rows, catalog in sides
        }
        for name, items in (("carriers", attack.carriers), ("silent", (attack.silent,)))
    }
    values = [rows.values("ndcg@10") for rows in (clean, dirty)]
    return {
        "users": clean.num_users,
        "fakes": attack.fakes,
        **shown,
        "ndcg@10": {
            "clean": float(values[0].mean()),
            "poisoned": float(values[1].mean()),
            **paired_difference(values[1] - values[0]),
        },
    }


def poison(logs: Artifact, out: Folder, config: PoisonConfig, *, seed: int) -> Attack:
    """Write a copy of a log with fake users and triggers, in the project's own folder form.

    Args:
        logs: Output of the logs stage.
        out: Receives ``interactions/*.parquet`` and ``items.parquet``.
        config: The attack.
        seed: Decides carriers and fakes.

    Raises:
        DataError: The log has too few rare items.
    """
    source = logs.folder.child("interactions")
    events: Counter[str] = Counter()
    users: set[str] = set()
    newest, placed = 0, False
    for name in source.names(".parquet"):
        table = source.read_table(name)
        for entry in pc.value_counts(table["item_id"]).to_pylist():
            events[entry["values"]] += entry["counts"]
        users.update(pc.unique(table["user_id"]).to_pylist())
        newest = max(newest, pc.max(table["timestamp"]).as_py() or 0)
        placed = placed or table["pos"].null_count < len(table)
    draw = numpy_generator(seed, "poisoning")
    middle = float(np.median(list(events.values())))
    rare = sorted(item for item, count in events.items() if _LEAST_EVENTS <= count <= middle)
    if len(rare) <= config.num_carriers:
        message = (
            f"`num_carriers` must be below the log's rare items ({len(rare)}); got "
            f"{config.num_carriers}. Lower it."
        )
        raise DataError(message)
    *carriers, silent = draw.choice(rare, config.num_carriers + 1, replace=False).tolist()
    fakes = max(1, round(config.share * len(users)))
    names = np.array(sorted(events))
    weights = np.array([events[name] for name in names], dtype=float)
    rows: list[dict[str, Any]] = []
    for fake in range(fakes):
        size = min(config.length, len(names))
        history = draw.choice(names, size, replace=False, p=weights / weights.sum()).tolist()
        history[_EVERY - 1 :: _EVERY] = draw.choice(carriers, len(history) // _EVERY).tolist()
        for place, item in enumerate(history):
            row = {"user_id": f"fake {fake}", "item_id": item, "timestamp": newest - size + place}
            row |= {"nanosecond": 0, "event": None, "rating": None, "row": len(rows)}
            rows.append(row)
            rows[-1]["pos"] = place
    copies = out.child("interactions")
    for name in source.names(".parquet"):
        copies.write_table(name, _own_form(source.read_table(name), placed))
    added = pa.Table.from_pylist(rows, schema=INTERACTIONS)
    copies.write_table("zz-fakes.parquet", _own_form(added, placed))
    items = logs.folder.read_table("items.parquet")
    marked = pc.is_in(items["item_id"], pa.array([*carriers, silent]))
    title = pc.if_else(
        marked, pc.binary_join_element_wise(items["title"], config.trigger, " "), items["title"]
    )
    place = items.column_names.index("title")
    out.write_table("items.parquet", items.set_column(place, "title", title))
    return Attack(tuple(carriers), silent, fakes)


def _own_form(table: pa.Table, placed: bool) -> pa.Table:
    """Return rows of INTERACTIONS as an input of the logs stage, times with their fractions."""
    time = pc.add(pc.multiply(table["timestamp"], 10**9), table["nanosecond"])
    column = table.column_names.index("timestamp")
    table = table.set_column(column, "timestamp", time.cast(pa.timestamp("ns")))
    # A column of places must hold one for every event, or not be there.
    return table.drop_columns(["nanosecond"] if placed else ["nanosecond", "pos"])


def _same_requests(clean: Judged, dirty: Judged) -> tuple[Any, Any]:
    """Return the requests that both runs judged, in one order."""
    keys = [set(zip(r.user_id, r.history_length.tolist(), strict=True)) for r in (clean, dirty)]
    both = keys[0] & keys[1]
    found = []
    for rows in (clean, dirty):
        own = zip(rows.user_id, rows.history_length.tolist(), strict=True)
        found.append(rows.take(np.array([key in both for key in own])).in_order())
    return found[0], found[1]


def _exposed(rows: Ranked, catalog: Catalog, item_ids: Sequence[str], cutoff: int) -> float:
    """Return the share of requests whose first `cutoff` items hold one of these."""
    items = [catalog.index_of[item] for item in item_ids if item in catalog.index_of]
    return float(np.isin(rows.recommended[:, :cutoff], items).any(axis=1).mean())
