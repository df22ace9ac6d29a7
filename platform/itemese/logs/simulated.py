"""The simulated source: ranges of users of a `World`, each drawn by a task of its own."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from itemese.core.artifacts import Counts, Folder
from itemese.logs.chunks import Chunk
from itemese.logs.config import ColumnMap, LogsConfig
from itemese.logs.pieces import Piece
from itemese.logs.tables import write_items
from itemese.simulation.config import SimulationConfig
from itemese.simulation.world import World

NAMES = {name: name for name in ("user_id", "item_id", "timestamp", "event", "rating")}

_CHUNK_EVENTS = 2_000_000
_PIECE_EVENTS = 500_000
_USER_SHIFT = 20
"""An event's row is ``user number << 20 | place``; a user has at most 1,000,000 events."""


def plan_users(config: LogsConfig) -> list[Chunk]:
    """Cut the users into chunks; what a row holds does not depend on the cut."""
    world = config.world()
    size = _users_per(_CHUNK_EVENTS, world)
    if config.num_blocks:
        size = -(-world.num_users // config.num_blocks)
    starts = range(0, world.num_users, size)
    return [
        Chunk(index, 0, "simulated", start, min(start + size, world.num_users))
        for index, start in enumerate(starts)
    ]


def _users_per(events: int, config: SimulationConfig) -> int:
    """Return how many users have about `events` events."""
    return max(1, int(events / config.lengths.mean))


@lru_cache(maxsize=1)
def _world(values: str, seed: int) -> World:
    """Return the world of a config in JSON; a worker process builds it once."""
    return World(SimulationConfig.model_validate_json(values), seed)


def world_of(config: SimulationConfig, seed: int) -> World:
    """Return the world of (config, seed)."""
    return _world(config.model_dump_json(), seed)


def simulated_pieces(chunk: Chunk, config: SimulationConfig, seed: int) -> Iterator[Piece]:
    """Yield the events of the chunk's users."""
    world = world_of(config, seed)
    size = _users_per(_PIECE_EVENTS, config)
    for start in range(chunk.start, chunk.stop, size):
        stop = min(start + size, chunk.stop)
        events = world.events(start, stop)
        lengths = world.lengths(start, stop)
        first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        place = np.arange(len(events)) - first
        row = (np.repeat(np.arange(start, stop), lengths) << _USER_SHIFT) + place
        yield Piece(pl.DataFrame(events), row, row, len(events))


def write_sides(config: LogsConfig, folder: Folder, seed: int) -> Counts:
    """Write the simulated ``items.parquet`` and ``users.parquet``."""
    world = world_of(config.world(), seed)
    counts = write_items(folder, pl.DataFrame(world.items()), ColumnMap())
    filesystem, path = folder.filesystem()
    size = _users_per(_PIECE_EVENTS, config.world())
    target = f"{path}/users.parquet"
    schema = world.users(0, 1).schema
    with pq.ParquetWriter(target, schema, filesystem=filesystem, compression="zstd") as writer:
        for start in range(0, world.num_users, size):
            writer.write_table(world.users(start, min(start + size, world.num_users)))
    return counts | {"num_users_described": world.num_users}
