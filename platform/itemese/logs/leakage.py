"""Signs that a log or its side tables know the future, or are ordered by an artefact."""

import polars as pl

_MIN_ROWS = 20
"""Below this many rows a share says nothing."""

_SPLIT_NAMES = {"split", "is_target", "is_test", "target", "fold", "label", "labels"}
_FUTURE_NAMES = {
    "related",
    "also_bought",
    "also_viewed",
    "sales_rank",
    "salesrank",
    "popularity",
    "num_ratings",
    "rating_count",
    "mean_rating",
    "rating_mean",
    "average_rating",
    "last_item",
    "next_item",
}
_HIGH_CORRELATION = 0.95
_ORDERED_TIES = 0.9
_LAST_ONLY_SHARE = 0.05
_TELLS_LAST_SHARE = 0.2


def suspicions(
    events: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame | None,
    columns_left_out: list[str],
    ties: dict[str, float],
) -> list[str]:
    """Return one sentence for each thing to look at.

    Args:
        events: From `inspect.read_events`.
        items: The items table.
        users: The users table, if there is one.
        columns_left_out: Columns of the input that were not kept.
        ties: From `inspect.tie_figures`.
    """
    found = _about_order(events, ties)
    for name in columns_left_out:
        if name.lower() in _SPLIT_NAMES:
            found.append(
                f"the input has a column {name!r}: it may mark targets; it is not used here."
            )
    found += _last_only_items(events)
    popularity = events.group_by("item_id").agg(pl.len().alias("_count"))
    found += _about_table(items.join(popularity, on="item_id"), "items", "the number of events")
    if users is not None:
        facts = events.group_by("user_id").agg(
            pl.len().alias("_count"), pl.col("item_id").filter("last").first().alias("_last")
        )
        titles = items.select(pl.col("item_id").alias("_last"), pl.col("title").alias("_title"))
        joined = users.join(facts, on="user_id").join(titles, on="_last", how="left")
        found += _about_table(joined, "users", "the history length")
        found += _tells_last(joined)
    return found


def _about_order(events: pl.DataFrame, ties: dict[str, float]) -> list[str]:
    """Return what is odd about times and ties."""
    found = []
    if events["timestamp"].n_unique() == 1 and events.height > 1:
        found.append(
            "all timestamps are equal: a temporal split is impossible, and only pos or the "
            "input's order says what came first."
        )
    rising = ties["rising_item_id"]
    if ties["tied_pairs"] >= _MIN_ROWS and not 1 - _ORDERED_TIES < rising < _ORDERED_TIES:
        direction = "rising" if rising > 0.5 else "falling"
        share = max(rising, 1 - rising)
        found.append(
            f"events of equal time are in {direction} order of item_id ({share:.1%} of tied "
            "pairs): an artefact that helps sequence models; report a run with "
            "`sequences.ties: shuffle` too."
        )
    return found


def _last_only_items(events: pl.DataFrame) -> list[str]:
    """Return a sentence if many users end on an item that occurs nowhere else."""
    only_last = events.group_by("item_id").agg(pl.col("last").all().alias("_only"))
    last = events.filter("last").join(only_last, on="item_id")
    share = float(last["_only"].sum()) / max(1, last.height)
    if last.height >= _MIN_ROWS and share > _LAST_ONLY_SHARE:
        return [
            f"{share:.1%} of users end on an item that occurs only as a last event: such targets "
            "are unknown in training, or were added to the histories afterwards."
        ]
    return []


def _about_table(table: pl.DataFrame, name: str, count: str) -> list[str]:
    """Return what is odd about the columns of a side table joined with ``_count``."""
    found = []
    for column, kind in table.schema.items():
        if column.startswith("_"):
            continue
        if column.lower() in _FUTURE_NAMES:
            found.append(
                f"{name} column {column!r} is usually computed from the whole log, future "
                "included: do not feed it to a model."
            )
        elif column.lower().startswith("llm") and name == "users":
            found.append(
                f"users column {column!r} reads as written by a language model: if it saw whole "
                "histories, it holds the targets."
            )
        elif kind.is_numeric() and table[column].n_unique() > 2 and table.height >= _MIN_ROWS:
            value = table.select(pl.corr(column, "_count", method="spearman")).item()
            if value is not None and abs(value) >= _HIGH_CORRELATION:
                found.append(
                    f"{name} column {column!r} follows {count} (rank correlation {value:.3f}): it "
                    "looks computed from the whole log, test events included."
                )
    return found


def _tells_last(users: pl.DataFrame) -> list[str]:
    """Return a sentence for each users column that names the user's last item."""
    found: list[str] = []
    if users.height < _MIN_ROWS:
        return found
    for column, kind in users.schema.items():
        if column.startswith("_") or column == "user_id":
            continue
        text = pl.col(column).cast(pl.String) if kind.is_integer() else pl.col(column)
        if not (kind == pl.String or kind.is_integer()):
            continue
        hit = (text == pl.col("_last")) | (text == pl.col("_title")).fill_null(False)
        share = float(users.select(hit.fill_null(False).mean()).item() or 0.0)
        if share > _TELLS_LAST_SHARE:
            found.append(
                f"users column {column!r} names the user's last item for {share:.1%} of users: it "
                "gives the test target away."
            )
    return found
