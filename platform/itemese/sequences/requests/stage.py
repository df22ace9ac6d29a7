"""The requests stage: histories in, the table of what is asked of a model out."""

import importlib
import pkgutil
from types import ModuleType

import pyarrow as pa

from itemese.core.artifacts import Counts, Folder
from itemese.core.config import nearest
from itemese.core.errors import ConfigError, DataError
from itemese.core.schema import Catalog, Histories, Split
from itemese.core.tasks import map_shards
from itemese.sequences.requests.building import Asked
from itemese.sequences.requests.config import RequestsConfig

VERSION = 1
"""Raise it when what this stage writes changes."""

SPLITS = (Split.VALIDATION, Split.TEST)

_NO_BUILDERS = {"building", "config", "stage"}


def build_requests(
    config: RequestsConfig, sequences: Folder, folder: Folder, *, seed: int, logs: Folder | None
) -> Counts:
    """Write the requests of validation and test, a shard beside each shard of histories.

    Args:
        config: What is asked.
        sequences: The sequences artifact.
        folder: Receives ``requests/{validation,test}/shard-*.parquet``.
        seed: Of the data; decides draws.
        logs: Holds the table of builders that read one; None if there is none.

    Returns:
        By split the number of ``requests``.

    Raises:
        ConfigError: There is no such builder.
        DataError: The builder's table is missing, or what it asks for cannot be drawn.
    """
    module = builder_module(config.builder)
    catalog = Catalog.read(sequences)
    asked = Asked(config, catalog.index_of, seed, _table(module, logs))
    shards = Histories.shard_names(sequences)
    counted = list(map_shards(write_shard, shards, module.__name__, asked, sequences, folder))
    names = [split.name.lower() for split in SPLITS]
    return {"requests": {name: sum(counts[name] for counts in counted) for name in names}}


def write_shard(
    shard: str, module: str, asked: Asked, sequences: Folder, folder: Folder
) -> dict[str, int]:
    """Build and write the requests of one shard; return their number by split."""
    build = importlib.import_module(module).build
    block, counts = Histories.read(sequences, [shard]), {}
    for split in SPLITS:
        requests = build(block, split, asked)
        requests.rows_in(block)
        requests.write(folder, split, shard)
        counts[split.name.lower()] = len(requests)
    return counts


def builder_names() -> list[str]:
    """Return the names of the builders in this folder."""
    package = importlib.import_module("itemese.sequences.requests")
    return sorted({m.name for m in pkgutil.iter_modules(package.__path__)} - _NO_BUILDERS)


def builder_module(name: str) -> ModuleType:
    """Import a builder: a file of this folder, or a dotted path from elsewhere.

    Raises:
        ConfigError: There is none; the nearest name is suggested.
    """
    if name in builder_names():
        return importlib.import_module(f"itemese.sequences.requests.{name}")
    if "." not in name:
        message = f"`builder` must be a known builder of requests; got {name!r}. "
        raise ConfigError(message + nearest(name, builder_names()))
    return importlib.import_module(name)


def _table(module: ModuleType, logs: Folder | None) -> pa.Table | None:
    """Return the builder's own table, sorted by user and time; None if it reads none."""
    name = getattr(module, "TABLE", None)
    if name is None:
        return None
    if logs is None or not logs.exists(name):
        message = (
            f"`logs` must hold {name!r} for these requests; got none. Put the file beside the "
            "interactions."
        )
        raise DataError(message)
    return logs.read_table(name).sort_by([("user_id", "ascending"), ("timestamp", "ascending")])
