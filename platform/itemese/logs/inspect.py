"""What a behaviour log looks like, before anything is learned from it."""

from datetime import UTC, datetime
from typing import Any

import polars as pl

from itemese.core.artifacts import Folder
from itemese.logs.leakage import suspicions

MAX_EVENTS = 20_000_000
"""Above this the figures come from a sample of whole users, and say so."""

_QUANTILES = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}
_HASH_PARTS = 10_000
_MOST = 0.99


def inspect_logs(folder: Folder) -> dict[str, Any]:
    """Measure the artifact of the logs stage.

    Args:
        folder: Holds ``interactions/``, ``items.parquet``, ``quarantine.parquet``, ...

    Returns:
        JSON-able figures by group, and ``leakage``: one sentence for each thing that looks like
        knowledge of the future or an artefact of how the data was made.
    """
    summary = folder.read_json("summary.json")
    share = min(1.0, MAX_EVENTS / summary["rows_kept"])
    events = read_events(folder, share)
    items = pl.DataFrame(folder.read_table("items.parquet"))
    users = pl.DataFrame(folder.read_table("users.parquet")) if _has_users(folder) else None
    lengths = events.group_by("user_id").len()["len"]
    per_item = events.group_by("item_id").len()["len"]
    ties = tie_figures(events)
    return {
        "source": summary["source"],
        "sampled_user_share": share,
        "events": summary["rows_kept"],
        "users": len(lengths),
        "items": len(per_item),
        "density": events.height / (len(lengths) * len(per_item)),
        "time": time_figures(events),
        "history_length": quantiles(lengths),
        "events_per_item": quantiles(per_item),
        "ties": ties,
        "repeats": repeat_figures(events),
        "items_without_text": missing_text(events, items),
        "quarantine": {
            "rows": summary["rows_quarantined"],
            "of": summary["rows_in"],
            "reasons": summary["quarantine_reasons"],
        },
        "columns_left_out": summary["columns_left_out"],
        "warnings": summary["warnings"],
        "leakage": suspicions(events, items, users, summary["columns_left_out"], ties),
    }


def _has_users(folder: Folder) -> bool:
    """Return whether the artifact has a users table."""
    return folder.exists("users.parquet")


def read_events(folder: Folder, share: float) -> pl.DataFrame:
    """Return the events of a share of the users, ordered as the sequences stage orders them.

    Columns user_id, item_id, timestamp, nanosecond, pos, row, ``place`` (0 first) and ``last``
    (bool).
    """
    interactions = folder.child("interactions")
    columns = ["user_id", "item_id", "timestamp", "nanosecond", "pos", "row"]
    frames = []
    for name in interactions.names(".parquet"):
        frame = pl.DataFrame(interactions.read_table(name, columns))
        if share < 1.0:
            part = pl.col("user_id").hash(seed=7) % _HASH_PARTS
            frame = frame.filter(part < int(share * _HASH_PARTS) + 1)
        frames.append(frame)
    events = pl.concat(frames)
    has_places = events["pos"].null_count() == 0
    order = ["pos", "row"] if has_places else ["timestamp", "nanosecond", "row"]
    place = pl.int_range(pl.len()).over("user_id")
    return events.sort("user_id", *order).with_columns(
        place.alias("place"), (place == pl.len().over("user_id") - 1).alias("last")
    )


def quantiles(values: pl.Series) -> dict[str, float]:
    """Return mean and quantiles."""
    found = {name: float(values.quantile(q, "nearest") or 0) for name, q in _QUANTILES.items()}
    return {"mean": round(float(values.cast(pl.Float64).mean() or 0.0), 3)} | found  # type: ignore[arg-type]


def time_figures(events: pl.DataFrame) -> dict[str, Any]:
    """Return first and last time, the span in days and the resolution that the times show."""
    times = events["timestamp"].sort()
    first, last = int(times[0]), int(times[-1])
    return {
        "first": datetime.fromtimestamp(first, UTC).isoformat(),
        "last": datetime.fromtimestamp(last, UTC).isoformat(),
        "days": round((last - first) / 86_400, 3),
        "resolution": resolution(events),
    }


def resolution(events: pl.DataFrame) -> str:
    """Return the resolution of the times, from ``below a second`` to ``days``.

    ``order only``: they count the events of a user. ``nothing``: all are equal.
    """
    if (events["nanosecond"] > 0).any():
        return "below a second"
    times = events["timestamp"]
    if times.n_unique() == 1:
        return "nothing"
    if (times == events["place"]).all():
        return "order only"
    for name, seconds in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        # A few imputed times do not change the resolution of the others.
        if _mean(times % seconds == 0) >= _MOST:
            return name
    return "seconds"


def tie_figures(events: pl.DataFrame) -> dict[str, float]:
    """Return how much of the order equal timestamps leave open.

    ``pairs`` and ``last`` are the shares of consecutive events of a user, and of users' last
    events, that bear the time of the event before; ``rising_item_id`` is the share of tied pairs
    of different items whose ids rise, one half where ties are in no particular order.
    """
    numeric = events["item_id"].str.contains(r"^\d{1,18}$").all()
    item = pl.col("item_id").cast(pl.Int64) if numeric else pl.col("item_id")
    time = pl.struct("timestamp", "nanosecond")
    pairs = events.select(
        "last",
        (time == time.shift(1)).over("user_id").alias("tied"),
        (item > item.shift(1)).over("user_id").alias("rising"),
        (item != item.shift(1)).over("user_id").alias("different"),
    ).drop_nulls("tied")
    last = pairs.filter("last")
    tied = pairs.filter(pl.col("tied") & pl.col("different"))
    return {
        "pairs": _mean(pairs["tied"]),
        "last": _mean(last["tied"]),
        "tied_pairs": float(pairs["tied"].sum()),
        "rising_item_id": _mean(tied["rising"]),
    }


def _mean(values: pl.Series) -> float:
    """Return a share; 0 of nothing is 0."""
    return float(values.cast(pl.Float64).mean() or 0.0)  # type: ignore[arg-type]


def repeat_figures(events: pl.DataFrame) -> dict[str, float]:
    """Return how many events repeat an item of the same user, in all and one after another."""
    again = (
        pl.struct("user_id", "item_id").is_duplicated()
        & ~pl.struct("user_id", "item_id").is_first_distinct()
    )
    at_once = (pl.col("item_id") == pl.col("item_id").shift(1)).over("user_id")
    found = events.select(again.sum().alias("again"), at_once.sum().alias("at_once"))
    return {
        "events": int(found["again"][0]),
        "share": int(found["again"][0]) / max(1, events.height),
        "consecutive": int(found["at_once"][0] or 0),
    }


def missing_text(events: pl.DataFrame, items: pl.DataFrame) -> dict[str, int]:
    """Return how many items of the log have no title, and how many are not described at all."""
    seen = events.select("item_id").unique()
    titled = items.filter(pl.col("title").fill_null("").str.strip_chars() != "")
    return {
        "without_title": seen.join(titled, on="item_id", how="anti").height,
        "not_described": seen.join(items, on="item_id", how="anti").height,
    }


def describe(figures: dict[str, Any]) -> str:
    """Return what `inspect_logs` found as lines for people."""
    time, ties, text = figures["time"], figures["ties"], figures["items_without_text"]
    quarantine, repeats = figures["quarantine"], figures["repeats"]
    share = figures["sampled_user_share"]
    note = "" if share >= 1 else f" (figures below from {share:.2%} of the users)"
    lines = [
        f"source          {figures['source']}",
        f"events          {figures['events']:,}{note}",
        f"users, items    {figures['users']:,}, {figures['items']:,} "
        f"(density {figures['density']:.4%})",
        f"time            {time['first']} .. {time['last']} ({time['days']:,.1f} days)",
        f"resolution      {time['resolution']}",
        f"history length  {_spread(figures['history_length'])}",
        f"events an item  {_spread(figures['events_per_item'])}",
        f"ties            {ties['pairs']:.2%} of consecutive events, {ties['last']:.2%} of last "
        f"events; ids rise in {ties['rising_item_id']:.1%} of tied pairs",
        f"repeats         {repeats['events']:,} events ({repeats['share']:.2%}) of an item the "
        f"user had before, {repeats['consecutive']:,} of them at once",
        f"items           {text['without_title']:,} without a title, {text['not_described']:,} of "
        "them not in the items table",
        f"quarantine      {quarantine['rows']:,} of {quarantine['of']:,} rows",
    ]
    lines += [f"  {count:>10,}  {reason}" for reason, count in quarantine["reasons"].items()]
    lines.append(f"left out        {', '.join(figures['columns_left_out']) or 'no columns'}")
    lines += [f"warning         {sentence}" for sentence in figures["warnings"]]
    lines.append("looks like leakage or an artefact:" if figures["leakage"] else "no leakage seen")
    return "\n".join(lines + [f"  - {sentence}" for sentence in figures["leakage"]])


def _spread(values: dict[str, float]) -> str:
    """Return quantiles on one line."""
    return "  ".join(f"{name} {value:,.4g}" for name, value in values.items())
