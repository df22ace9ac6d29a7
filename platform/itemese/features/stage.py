"""The users and the fields stages: raw columns in, a users table and encoded fields out.

Letters: U users and E events of a shard, I items.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from itemese.core.artifacts import Counts, Folder
from itemese.core.config import nearest
from itemese.core.errors import DataError
from itemese.core.fields import Field, FieldEncoder, Fields, Kind, Owner, one_array, to_table
from itemese.core.schema import EVENT_FIELDS, USER_FIELDS, Histories, Split
from itemese.core.tasks import map_shards
from itemese.core.users import Users
from itemese.features.config import Columns, FeaturesConfig
from itemese.features.counting import Summary, guess_kind, make_field, summarise

USERS_VERSION = 1
FIELDS_VERSION = 1

_GUESSED_ROWS = 100_000
"""Training rows that a kind is guessed from, at most."""


def build_users(sequences: Folder, logs: Folder, folder: Folder) -> Counts:
    """Join the users that have histories with the log's user table.

    Args:
        sequences: Holds the histories.
        logs: May hold ``users.parquet``; the first of several rows of one user counts.
        folder: Receives ``users.parquet``, see `core.users.Users`.

    Returns:
        ``num_users``, ``users_without_training``, ``users_not_described``.

    Raises:
        DataError: The user table has a column ``train_count`` of its own.
    """
    ids, counts = [], []
    for shard in Histories.shard_names(sequences):
        table = sequences.child("histories").read_table(shard, ["user_id", "split"])
        ids += table["user_id"].chunks
        for column in table["split"].chunks:
            is_train = column.flatten().to_numpy(zero_copy_only=False) == Split.TRAIN
            before = np.concatenate([[0], np.cumsum(is_train)])
            edges = column.offsets.to_numpy() - column.offsets[0].as_py()
            counts.append(np.diff(before[edges]))
    user_id = pa.concat_arrays(ids or [pa.array([], pa.string())])
    train = np.concatenate([np.empty(0, np.int64), *counts])
    columns = {"user_id": user_id, "train_count": pa.array(train, pa.int64())}
    described = logs.read_table("users.parquet") if logs.exists("users.parquet") else None
    missing = len(user_id)
    if described is not None:
        if "train_count" in described.column_names:
            message = (
                "`users.parquet` must leave the column train_count to the users stage; got one of "
                "its own. Rename it."
            )
            raise DataError(message)
        place = pc.index_in(user_id, one_array(described["user_id"]).cast(pa.string()))
        missing = place.null_count
        found = described.drop_columns(["user_id"]).take(place)
        columns |= {name: found[name] for name in found.column_names}
    Users(pa.table(columns)).write(folder)
    return {
        "num_users": len(user_id),
        "users_without_training": int((train == 0).sum()),
        "users_not_described": missing,
    }


def build_fields(
    config: FeaturesConfig, sequences: Folder, users: Folder, folder: Folder
) -> Counts:
    """Find the fields of the section's columns on training rows, and encode all rows.

    Training rows are items and users with training events, and training events; a value that
    only other rows have is unknown.

    Args:
        config: The section.
        sequences: Holds the catalogue and the histories, with `sequences.columns`.
        users: The users artifact of these histories.
        folder: Receives what `Fields.write` writes, and by shard of histories the encoded fields
            of its users and events.

    Returns:
        By key of each field its kind, ``size`` and ``remainder``.

    Raises:
        DataError: A column that is not there, or of another kind.
    """
    catalog = sequences.read_table("catalog.parquet")
    people = Users.read(users).table
    made: list[tuple[Field, pa.Array | None]] = []
    made += _fields_of("item", config.item, catalog, config)
    made += _fields_of("user", config.user, people, config)
    events: dict[Owner, Columns] = {"event": config.event, "context": config.context}
    made += _event_fields(events, sequences, config)
    values = {field.key: found for field, found in made if found is not None}
    encoder = FieldEncoder(tuple(field for field, _ in made), values)
    items = {f.key: encoder.encode_column(f, catalog[f.name]) for f in encoder.owned_by("item")}
    Fields(encoder, items).write(folder)
    if encoder.owned_by("user", "event", "context"):
        _encode_shards(encoder, sequences, people, folder)
    return {
        field.key: {"kind": field.kind, "size": field.size, "remainder": field.remainder}
        for field in encoder.fields
    }


def _fields_of(
    owner: Owner, columns: Columns, table: pa.Table, config: FeaturesConfig
) -> list[tuple[Field, pa.Array | None]]:
    """Return the fields of items or users, whose rows with training events count."""
    _require(owner, columns, table.column_names)
    trained = table.filter(pc.greater(table["train_count"], 0))
    found = []
    for name, kind in columns.items():
        column = one_array(trained[name])
        chosen = kind or guess_kind(column.slice(0, _GUESSED_ROWS))
        summary = Summary.merge([summarise(chosen, column, name)])
        found.append(_field(name, owner, chosen, summary, config))
    return found


def _event_fields(
    wanted: Mapping[Owner, Columns], sequences: Folder, config: FeaturesConfig
) -> list[tuple[Field, pa.Array | None]]:
    """Return the fields of events and contexts; Ray counts their values shard by shard."""
    names = list(dict.fromkeys(name for columns in wanted.values() for name in columns))
    shards = Histories.shard_names(sequences)
    if not names:
        return []
    histories = sequences.child("histories")
    for owner, columns in wanted.items():
        _require(owner, columns, histories.read_table(shards[0]).column_names)
    sample = _training_events(histories, shards[0], names)
    kinds: dict[tuple[Owner, str], Kind] = {
        (owner, name): kind or guess_kind(sample[name].slice(0, _GUESSED_ROWS))
        for owner, columns in wanted.items()
        for name, kind in columns.items()
    }
    counted = list(map_shards(_summarise_shard, shards, histories, kinds))
    return [
        _field(name, owner, kind, Summary.merge(found[owner, name] for found in counted), config)
        for (owner, name), kind in kinds.items()
    ]


def _summarise_shard(
    shard: str, histories: Folder, kinds: Mapping[tuple[Owner, str], Kind]
) -> dict[tuple[Owner, str], Summary]:
    """Summarise the training events of one shard."""
    events = _training_events(histories, shard, list({name for _, name in kinds}))
    return {key: summarise(kind, events[key[1]], key[1]) for key, kind in kinds.items()}


def _field(
    name: str, owner: Owner, kind: Kind, summary: Summary, config: FeaturesConfig
) -> tuple[Field, pa.Array | None]:
    limits = {"max_values": config.max_values, "max_list": config.max_list}
    return make_field(name, owner, kind, summary, **limits)


def _training_events(histories: Folder, shard: str, names: list[str]) -> dict[str, pa.Array]:
    """Return raw values of a shard's training events, ``[N]`` each."""
    table = histories.read_table(shard, ["split", *names])
    trains = pc.equal(one_array(table["split"]).flatten(), int(Split.TRAIN))
    return {name: one_array(table[name]).flatten().filter(trains) for name in names}


def _encode_shards(
    encoder: FieldEncoder, sequences: Folder, people: pa.Table, folder: Folder
) -> None:
    """Write each shard's encoded fields of users and events."""
    shards = Histories.shard_names(sequences)
    histories = sequences.child("histories")
    sizes = [histories.read_table(shard, ["user_id"]).num_rows for shard in shards]
    starts = dict(zip(shards, (np.cumsum(sizes) - sizes).tolist(), strict=True))
    for _ in map_shards(_encode_shard, shards, encoder, histories, people, starts, folder):
        pass


def _encode_shard(
    shard: str,
    encoder: FieldEncoder,
    histories: Folder,
    people: pa.Table,
    starts: Mapping[str, int],
    folder: Folder,
) -> None:
    """Encode one shard's users and events.

    Raises:
        DataError: The users are those of other histories.
    """
    of_events = encoder.owned_by("event", "context")
    names = list({field.name for field in of_events})
    table = histories.read_table(shard, ["user_id", *names])
    mine = people.slice(starts[shard], table.num_rows)
    if one_array(mine["user_id"]) != one_array(table["user_id"]):
        message = (
            f"`users` must hold the users of the histories in their order; got others in {shard}. "
            "Build the users of these sequences."
        )
        raise DataError(message)
    users = {f.key: encoder.encode_column(f, mine[f.name]) for f in encoder.owned_by("user")}
    flat = {name: one_array(table[name]).flatten() for name in names}
    events = {f.key: encoder.encode_column(f, flat[f.name]) for f in of_events}
    for home, columns in ((USER_FIELDS, users), (EVENT_FIELDS, events)):
        if columns:
            folder.child(home).write_table(shard, to_table(columns))


def _require(owner: str, columns: Columns, known: list[str]) -> None:
    """Raise DataError unless every column is there."""
    for name in columns:
        if name not in known:
            remedy = ""
            if owner in ("event", "context"):
                remedy = " Add it to `sequences.columns`."
            message = (
                f"`features.{owner}` must name columns that are there; got {name!r}. "
                f"{nearest(name, known)}{remedy}"
            )
            raise DataError(message)
