"""Which reader a recipe's source names."""

from dataclasses import replace

from itemese.core.artifacts import Folder
from itemese.logs import amazon, files, movielens, simulated
from itemese.logs.config import LogsConfig
from itemese.logs.inputs import Plan, own_form


def plan(config: LogsConfig) -> Plan:
    """Find the input and cut it into chunks.

    `movielens_1m` and `amazon_2014` take the publisher's files unless the path holds
    ``interactions.parquet``, ``.csv`` or ``.jsonl``: then it is read as the project's own form.

    Raises:
        DataError: A file or column that is missing or cannot be read.
    """
    planned = _plan(config)
    columns = config.columns.model_dump()
    names = {ours: theirs for ours, theirs in planned.names.items() if columns[ours] is not None}
    sides = planned.side_columns
    sides = sides if columns["title"] else sides.model_copy(update={"title": None})
    return replace(planned, names=names, side_columns=sides)


def _plan(config: LogsConfig) -> Plan:
    """Plan all columns that the source has, those included that the recipe leaves unread."""
    if config.source == "simulated":
        return Plan(simulated.plan_users(config), simulated.NAMES)
    folder, name = files.locate(config.location(), "logs.path")
    if config.source == "movielens_1m" and not _is_own(name, folder):
        return movielens.plan_movielens(config, folder, name)
    if config.source == "amazon_2014" and not _is_own(name, folder):
        return amazon.plan_amazon(config, folder, name)
    return own_form(config, folder, name)


def _is_own(name: str | None, folder: Folder) -> bool:
    """Return whether the path is in the project's own form."""
    if name is not None:
        return name.startswith("interactions.")
    return files.find_table(folder, "interactions") is not None
