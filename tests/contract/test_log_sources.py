"""What every source of behaviour logs must hold, on a few dozen rows of each."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest

from itemese.core.artifacts import Counts, Folder
from itemese.core.errors import DataError
from itemese.core.schema import INTERACTIONS
from itemese.logs.config import LogsConfig, SourceKind
from itemese.logs.duplicates import REASON
from itemese.logs.stage import build_logs, fingerprint

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

Values = dict[str, Any]
ROWS = [(f"u{n % 5}", f"i{n % 7}", 1000 + 10 * n, float(n % 5 + 1)) for n in range(40)]
TITLES = {f"i{n}": f"Thing {n}" for n in range(7)}


def own(folder: Path, form: str) -> Values:
    frame = pl.DataFrame(ROWS, ["user_id", "item_id", "timestamp", "rating"], orient="row")
    items = pl.DataFrame({"item_id": list(TITLES), "title": list(TITLES.values())})
    write = {"csv": "write_csv", "jsonl": "write_ndjson", "parquet": "write_parquet"}[form]
    # Two files, so that the order of files counts too.
    (folder / "interactions").mkdir()
    groups = {"row_group_size": 10} if form == "parquet" else {}
    getattr(frame[:25], write)(folder / "interactions" / f"a.{form}", **groups)
    getattr(frame[25:], write)(folder / "interactions" / f"b.{form}", **groups)
    getattr(items, write)(folder / f"items.{form}")
    return {"source": form, "path": str(folder)}


def movielens(folder: Path) -> Values:
    number = [(u[1:], i[1:], int(r), t) for u, i, t, r in ROWS]
    lines = [f"{u}::{i}::{r}::{t}\n" for u, i, r, t in number]
    (folder / "ratings.dat").write_text("".join(lines))
    (folder / "movies.dat").write_text("".join(f"{n}::Thing {n}::Drama\n" for n in range(7)))
    (folder / "users.dat").write_text("".join(f"{n}::F::1::10::0\n" for n in range(5)))
    return {"source": "movielens_1m", "path": str(folder)}


def amazon(folder: Path) -> Values:
    reviews = [
        {"reviewerID": u, "asin": i, "overall": r, "unixReviewTime": t, "reviewText": "a, b"}
        for u, i, t, r in ROWS
    ]
    text = "".join(json.dumps(review) + "\n" for review in reviews)
    (folder / "reviews_Beauty_5.json.gz").write_bytes(gzip.compress(text.encode()))
    things = [
        {"asin": i, "title": title, "categories": [["Beauty", "Nails"]], "price": 3.5, "brand": "B"}
        for i, title in TITLES.items()
    ]
    things.append({"asin": "unused", "title": "never bought"})
    lines = [f"{thing}\n" for thing in things] + ["{'asin': 'i3', __import__('os')}\n"]
    (folder / "meta_Beauty.json.gz").write_bytes(gzip.compress("".join(lines).encode()))
    return {"source": "amazon_2014", "path": str(folder)}


def simulated(folder: Path) -> Values:
    lengths = {"mean": 6, "min": 3, "max": 10}
    world = {"num_users": 40, "num_items": 50, "lengths": lengths}
    return {"source": "simulated", "simulation": world}


SOURCES: dict[str, Callable[[Path], Values]] = {
    "parquet": lambda folder: own(folder, "parquet"),
    "csv": lambda folder: own(folder, "csv"),
    "jsonl": lambda folder: own(folder, "jsonl"),
    "movielens_1m": movielens,
    "amazon_2014": amazon,
    "simulated": simulated,
}


def build(values: Values, folder: Path, seed: int = 0) -> tuple[Counts, Folder]:
    out = Folder.at(folder).create()
    return build_logs(LogsConfig.parse(values, "logs"), out, seed=seed), out


def read(folder: Folder) -> pl.DataFrame:
    interactions = folder.child("interactions")
    tables = [interactions.read_table(name) for name in interactions.names(".parquet")]
    assert all(table.schema.equals(INTERACTIONS) for table in tables)
    return pl.concat([pl.DataFrame(table) for table in tables])


def test_the_suite_covers_every_kind_of_source() -> None:
    assert set(SOURCES) == set(get_args(SourceKind))


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_gives_the_schema_in_input_order_whatever_the_number_of_tasks(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    values = SOURCES[kind](tmp_path / "in")
    counts, folder = build(values, tmp_path / "one")
    events = read(folder)
    assert counts["rows_in"] == counts["rows_kept"] == len(events)
    assert counts["rows_quarantined"] == len(folder.read_table("quarantine.parquet")) == 0
    assert events["row"].to_list() == sorted(set(events["row"].to_list()))
    assert folder.read_json("summary.json") == counts
    assert set(folder.names()) - {"users.parquet"} == {
        "items.parquet",
        "quarantine.parquet",
        "summary.json",
    }
    if kind != "simulated":
        prefix = 1 if kind == "movielens_1m" else 0  # its ids are plain numbers
        expected = [(u[prefix:], i[prefix:], t, r) for u, i, t, r in ROWS]
        assert events.select("user_id", "item_id", "timestamp", "rating").rows() == expected
    items = pl.DataFrame(folder.read_table("items.parquet"))
    assert items.columns[:2] == ["item_id", "title"]
    assert items["item_id"].is_unique().all()
    assert set(events["item_id"]) <= set(items["item_id"])
    assert items["title"].null_count() == 0
    # Cut otherwise, the same rows come out, places included.
    more, apart = build({**values, "num_blocks": 5}, tmp_path / "five")
    assert read(apart).equals(events)
    assert more["num_shards"] > counts["num_shards"] or kind == "amazon_2014"


@pytest.mark.parametrize("kind", SOURCES)
def test_the_fingerprint_follows_the_content_and_nothing_else(kind: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, two = (LogsConfig.parse(SOURCES[kind](tmp_path / name)) for name in "ab")
    assert fingerprint(one, 0) == fingerprint(two, 0)
    if kind == "simulated":
        assert fingerprint(one, 0) != fingerprint(one, 1)
        return
    largest = max((tmp_path / "b").rglob("*.*"), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    if largest.suffix == ".gz":
        largest.write_bytes(gzip.compress(gzip.decompress(content).replace(b"1", b"2")))
    elif largest.suffix == ".parquet":
        pl.read_parquet(largest)[:-1].write_parquet(largest)
    else:
        largest.write_bytes(content.replace(b"1200", b"1201"))
    assert largest.read_bytes() != content
    assert fingerprint(one, 0) != fingerprint(two, 0)


BAD_LINES = {
    "csv": {
        ",i1,5,1": "missing user_id",
        "u1,i1,soon,1": "non-numeric timestamp",
        "u1,i1,-5,1": "negative timestamp",
        "u1,i1": "too few fields",
        "u1,i1,5,1,extra": "too many fields",
        "u1,\xff,5,1": "bad encoding",
        "u0,i0,1000,1.0": REASON,
    },
    "jsonl": {
        '{"user_id": "u1", "timestamp": 5}': "missing item_id",
        '{"user_id": "u1", "item_id": 1, "timestamp": "soon"}': "non-numeric timestamp",
        '{"user_id": "u1", "item_id": 1,': "unreadable line",
        '{"user_id": "u0", "item_id": "i0", "timestamp": 1000, "rating": 1.0}': REASON,
    },
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_bad_lines_are_quarantined_with_reason_and_position(kind: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    values = SOURCES[kind](tmp_path / "in") | {"max_quarantined_share": 0.5}
    place = tmp_path / "in" / "interactions" / f"b.{kind}"
    with place.open("ab") as file:
        file.write("".join(f"{line}\n" for line in BAD_LINES[kind]).encode("latin-1"))
    lines = len(place.read_bytes().splitlines())
    for blocks in (None, 6):
        counts, folder = build({**values, "num_blocks": blocks}, tmp_path / f"out-{blocks}")
        bad = folder.read_table("quarantine.parquet").to_pylist()
        assert [row["reason"] for row in bad] == list(BAD_LINES[kind].values())
        assert {row["file"] for row in bad} == {f"b.{kind}"}
        first = lines - len(bad) + 1  # lines count from 1
        assert [row["row"] for row in bad] == list(range(first, lines + 1))
        assert bad[0]["raw"] == next(iter(BAD_LINES[kind]))
        assert counts["rows_in"] == len(ROWS) + len(bad)
        assert counts["rows_kept"] == len(ROWS) == len(read(folder))
        assert sum(counts["quarantine_reasons"].values()) == len(bad)


def test_too_many_bad_rows_stop_the_stage_and_name_the_reasons(tmp_path: Path) -> None:
    lines = ["user_id,item_id,timestamp"] + [f"u,i{n},{n}" for n in range(90)]
    lines += ["u,i,soon"] * 7 + [",i,1"] * 3
    (tmp_path / "interactions.csv").write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        build({"source": "csv", "path": str(tmp_path)}, tmp_path / "out")
    message = str(caught.value)
    assert "10 of 100 rows bad (10.00%)" in message
    assert "non-numeric timestamp (7), missing user_id (3)" in message
    counts, _ = build(
        {"source": "csv", "path": str(tmp_path), "max_quarantined_share": 0.1}, tmp_path / "out2"
    )
    assert counts["rows_kept"] == 90


def test_real_repeats_are_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "u,i,1\n" * 4)
    values = {"source": "csv", "path": str(tmp_path)}
    with pytest.raises(DataError, match=r"Set `logs.duplicates: keep` if the repeats are real"):
        build(values, tmp_path / "out")
    counts, _ = build(values | {"duplicates": "keep"}, tmp_path / "kept")
    assert counts["rows_kept"] == 4


def test_duplicates_are_found_across_files_and_between_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "interactions").mkdir()
    head = "user_id,item_id,timestamp\n"
    lines = [f"u{n},i{n},{n}\n" for n in range(30)]
    (tmp_path / "interactions" / "a.csv").write_text(head + "".join(lines))
    (tmp_path / "interactions" / "b.csv").write_text(head + "".join(lines[::-1]) + "new,i,1\n")
    values = {"source": "csv", "path": str(tmp_path), "max_quarantined_share": 0.5}
    found = {}
    for buckets in (1, 3):
        monkeypatch.setattr("itemese.logs.duplicates.num_buckets", lambda _, b=buckets: b)
        counts, folder = build({**values, "num_blocks": 4}, tmp_path / f"out-{buckets}")
        assert counts["quarantine_reasons"] == {REASON: 30}
        bad = folder.read_table("quarantine.parquet")
        assert set(bad["file"].to_pylist()) == {"b.csv"}
        assert bad["row"].to_pylist() == list(range(2, 32))
        assert read(folder)["user_id"].to_list() == [f"u{n}" for n in range(30)] + ["new"]
        found[buckets] = (bad, read(folder))
    assert found[1][0].equals(found[3][0])
    assert found[1][1].equals(found[3][1])


@pytest.mark.parametrize("content", ["", "user_id,item_id,timestamp\n", "\n\n"])
def test_an_empty_log_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "interactions.csv").write_text(content)
    with pytest.raises(DataError, match=r"at least one interaction|header line"):
        build({"source": "csv", "path": str(tmp_path)}, tmp_path / "out")


def test_an_empty_parquet_log_is_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64})
    frame.write_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(DataError, match="at least one interaction"):
        build({"source": "parquet", "path": str(tmp_path)}, tmp_path / "out")


def test_a_log_of_one_user_passes(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("who;what;when\nu;i;1\nu;j;2\n")
    columns = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    values = {"source": "csv", "path": str(tmp_path / "log.csv"), "delimiter": ";"}
    counts, folder = build(values | {"columns": columns}, tmp_path / "out")
    assert counts["rows_kept"] == 2
    assert counts["num_items_described"] == 0
    assert read(folder)["item_id"].to_list() == ["i", "j"]


def test_a_torn_file_is_one_clear_error_out_of_a_worker(tmp_path: Path) -> None:
    lines = "".join(f'{{"user_id": {n}, "item_id": {n}, "timestamp": {n}}}\n' for n in range(90000))
    torn = gzip.compress(lines.encode())[:-1000]
    (tmp_path / "interactions.jsonl.gz").write_bytes(torn)
    with pytest.raises(DataError) as caught:
        build({"source": "jsonl", "path": str(tmp_path)}, tmp_path / "out")
    assert type(caught.value) is DataError
    assert str(caught.value).startswith("`logs.path` must hold readable files")
    assert "Traceback" not in str(caught.value)


def test_items_without_an_id_or_repeated_are_counted(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\nu,1,1\nu,2,2\n")
    (tmp_path / "items.csv").write_text('item_id,name\n1,"a, and\nb"\n,none\n1,again\n2,\n')
    values = {"source": "csv", "path": str(tmp_path), "columns": {"title": "name"}}
    counts, folder = build(values, tmp_path / "out")
    assert (counts["items_without_id"], counts["items_repeated"]) == (1, 1)
    assert folder.read_table("items.parquet").to_pylist() == [
        {"item_id": "1", "title": "a, and\nb"},
        {"item_id": "2", "title": None},
    ]
    assert (counts["num_items_described"], counts["num_items_titled"]) == (2, 1)


def test_what_looks_wrong_is_warned_of(tmp_path: Path) -> None:
    lines = [f"u{n % 2},{n},{1_700_000_000 + n}" for n in range(3)]
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    (tmp_path / "items.csv").write_text("item_id,title\n000,a\n1,b\n2,c\n")
    (tmp_path / "users.csv").write_text("user_id\nu0\nu1\nu2\n")
    values = {"source": "csv", "path": str(tmp_path), "timestamp_unit": "milliseconds"}
    counts, _ = build(values, tmp_path / "out")
    times, ids = counts["warnings"]
    assert times.startswith("3 of 3 events lie before 1990; all lie between 1970-01-20T16:13:20")
    assert ids.startswith("1 ids of events are not in the items table, and 1 of its ids have no ev")
    names = ("not_described", "described_without_events")
    assert [counts[f"items_{name}"] for name in names] == [1, 1]
    assert [counts[f"users_{name}"] for name in names] == [0, 1]


def test_places_that_are_partly_missing_name_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp,pos\nu,i,1,0\nu,j,2,\n")
    values = {"source": "csv", "path": str(tmp_path)}
    with pytest.raises(DataError, match=r"missing pos \(1\)\. Set `logs\.columns\.pos: null`"):
        build(values, tmp_path / "out")


@pytest.mark.data
@pytest.mark.parametrize(
    ("source", "name", "rows", "items"),
    [
        ("movielens_1m", "movielens_1m/interactions.parquet", 1_000_209, 3_883),
        ("movielens_1m", "movielens_1m/ml-1m.zip", 1_000_209, 3_883),
        ("amazon_2014", "amazon_beauty/interactions.parquet", 198_502, 12_101),
    ],
)
def test_real_data_sets_have_their_published_size(
    data_file: Callable[[str], Path],
    tmp_path: Path,
    source: str,
    name: str,
    rows: int,
    items: int,
) -> None:
    counts, _ = build({"source": source, "path": str(data_file(name))}, tmp_path / "out")
    assert (counts["rows_kept"], counts["rows_quarantined"]) == (rows, 0)
    assert counts["num_items_described"] == items
