"""The items and users tables, read with the rules of the interactions."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from itemese.core.artifacts import Counts, Folder
from itemese.core.errors import DataError
from itemese.logs import sources, tables
from itemese.logs.config import LogsConfig

IDS = ["001", "01", "1", "1.10", "1.1", "12e4", "120000", "true"]
TITLES = ["007", "1.5", "true", "1e3", "NaN", "0x10", "2001-01-01", "null"]


def sides(folder: Path, **values: Any) -> tuple[Counts, dict[str, pl.DataFrame]]:
    """Read the side tables beside the interactions; return their counts and what was written."""
    form = next(path.suffix[1:] for path in folder.glob("interactions.*"))
    config = LogsConfig.parse({"source": form, "path": str(folder), **values})
    plan, out = sources.plan(config), Folder.at(folder / "out").create()
    counts = tables.write_items(
        out, plan.read_items(out) if plan.read_items else None, plan.side_columns
    )
    if plan.read_users:
        counts |= tables.write_users(out, plan.read_users(out), plan.side_columns)
    names = out.names(".parquet")
    return counts, {name[:-8]: pl.DataFrame(out.read_table(name)) for name in names}


def csv_items(folder: Path, content: str | bytes) -> Path:
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\nu,i,1\n")
    body = content.encode() if isinstance(content, str) else content
    (folder / "items.csv").write_bytes(body)
    return folder


@pytest.mark.parametrize("form", ["csv", "jsonl", "numbers", "parquet"])
def test_ids_and_texts_are_read_as_they_are_written(inline: Any, tmp_path: Path, form: str) -> None:
    frame = pl.DataFrame(
        {"item_id": IDS, "user_id": IDS, "timestamp": range(8), "event": TITLES, "title": TITLES}
    )
    if form == "numbers":  # JSON without quotes, where JSON allows it
        keep = [n for n, text in enumerate(IDS) if text not in ("001", "01")]
        frame = frame[keep].with_columns(event="item_id", title="item_id")
        for stem in ("interactions", "items", "users"):
            lines = [
                f'{{"item_id": {i}, "user_id": {i}, "timestamp": 1, "event": {i}, "title": {i}}}'
                for i in frame["item_id"]
            ]
            (tmp_path / f"{stem}.jsonl").write_text("\n".join(lines))
    else:
        write = {"csv": "write_csv", "jsonl": "write_ndjson", "parquet": "write_parquet"}[form]
        for stem in ("interactions", "items", "users"):
            getattr(frame, write)(tmp_path / f"{stem}.{form}")
    form = form.replace("numbers", "jsonl")
    good, bad = inline({"source": form, "path": str(tmp_path), "duplicates": "keep"}, buckets=0)
    assert len(bad) == 0
    assert good.select("item_id", "user_id", "event").rows() == (
        frame.select("item_id", "user_id", "event").rows()
    )
    _, found = sides(tmp_path)
    assert found["items"].select("item_id", "title").rows() == (
        frame.select("item_id", "title").rows()
    )
    assert found["users"]["user_id"].to_list() == frame["user_id"].to_list()


def test_columns_of_csv_are_text_and_those_of_json_have_their_types(tmp_path: Path) -> None:
    csv_items(tmp_path, "item_id,title,code,year\n1,a,007,1999\n2,b,,2000\n")
    _, found = sides(tmp_path)
    assert found["items"].rows() == [("1", "a", "007", "1999"), ("2", "b", None, "2000")]
    (tmp_path / "items.csv").unlink()
    lines = [
        '{"item_id": 1, "title": true, "year": 1999, "price": 1.50, "new": true, "mixed": 1.10,'
        ' "genres": ["a"], "sizes": [1, 2], "paths": [["x"], ["y", "z"]], "deep": {"a": 1}}',
        "",
        '{"item_id": 2, "year": null, "price": 2, "mixed": "x", "genres": [], "sizes": null}',
    ]
    (tmp_path / "items.jsonl").write_text("\ufeff" + "\r\n".join(lines), newline="")
    _, found = sides(tmp_path)
    assert found["items"].to_dicts() == [
        {"item_id": "1", "title": "true", "year": 1999, "price": 1.5, "new": True, "mixed": "1.10",
         "genres": ["a"], "sizes": [1, 2], "paths": [["x"], ["y", "z"]], "deep": '{"a": "1"}'},
        {"item_id": "2", "title": None, "year": None, "price": 2.0, "new": None, "mixed": "x",
         "genres": [], "sizes": None, "paths": None, "deep": None},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("titles", "expected"),
    [
        ([True, False], ["true", "false"]),
        ([1.0, 1.5], ["1", "1.5"]),
        ([7, 8], ["7", "8"]),
        ([Decimal("1.10"), None], ["1.10", None]),
        ([b"caf\xc3\xa9", b"x"], ["caf\u00e9", "x"]),
    ],
)
def test_titles_of_any_type_of_parquet_are_text(
    tmp_path: Path, titles: list[Any], expected: list[str]
) -> None:
    csv_items(tmp_path, "")
    (tmp_path / "items.csv").unlink()
    pl.DataFrame({"item_id": [b"1", b"2"], "title": titles}).write_parquet(
        tmp_path / "items.parquet"
    )
    _, found = sides(tmp_path)
    assert found["items"].rows() == [("1", expected[0]), ("2", expected[1])]


def test_other_columns_of_parquet_keep_their_types(tmp_path: Path) -> None:
    csv_items(tmp_path, "")
    (tmp_path / "items.csv").unlink()
    wide = pa.array([Decimal("1.10")], pa.decimal256(40, 2))
    table = pa.table({"item_id": wide, "image": [b"\xff"], "year": [1999]})
    pq.write_table(table, tmp_path / "items.parquet")
    _, found = sides(tmp_path)
    assert found["items"].rows() == [("1.10", None, b"\xff", 1999)]


def test_one_dialect_reads_all_files(inline: Any, tmp_path: Path) -> None:
    head = '\ufeffuser_id;" item_id" ; timestamp;title '
    rows = ['u;"a;b";5;12" pizza', 'v;c;6;"a ""b"" c"']
    for stem in ("interactions", "items", "users"):
        (tmp_path / f"{stem}.csv").write_text("\r\n".join([head, *rows]) + "\r\n", newline="")
    good, _ = inline({"source": "csv", "path": str(tmp_path), "delimiter": ";"})
    assert good.select("user_id", "item_id", "timestamp").rows() == [("u", "a;b", 5), ("v", "c", 6)]
    counts, found = sides(tmp_path, delimiter=";")
    assert found["items"].select("item_id", "title", "timestamp").rows() == [
        ("a;b", '12" pizza', "5"),
        ("c", 'a "b" c', "6"),
    ]
    assert found["users"]["user_id"].to_list() == ["u", "v"]
    assert counts["num_items_titled"] == 2


def test_fields_may_hold_quotes_and_quoted_line_ends(tmp_path: Path) -> None:
    lines = ['1,12" pizza', '2,5" and 7"', '3,"say ""x"""', '4,"a,', "", 'b"', '5,"12" pizza', ""]
    long = "6," + "x" * 200_000
    csv_items(tmp_path, "\n".join(["item_id,title", *lines, long]))
    _, found = sides(tmp_path)
    assert found["items"]["title"].to_list() == [
        '12" pizza', '5" and 7"', 'say "x"', "a,\n\nb", "12 pizza", long[2:],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"item_id,title\n1,a\n2,b,c\n", "3 fields, not 2 in line 3"),
        (b'item_id,title\n1,"a\nb"\n2\n', "1 fields, not 2 in line 4"),
        (b'item_id,title\n1,a\n2,"b\n3,c\n', "a quote that is never closed in line 3"),
        (b'item_id\n1\n"2\n', "a quote that is never closed in line 3"),
        (b"item_id,title\n1,a\n2,\xff\n", "bytes that are not UTF-8 in line 3"),
        (b"item_id,title\n1,a\rb\n", "in line 2"),
        (b"item_id,title\r1,a\r2,b\r", "carriage returns alone"),
        ("item_id,title\n1,a\n".encode("utf-16"), "header line in UTF-8"),
        (b"item_id,title,title\n1,a,b\n", "the columns ['title'] twice"),
        (b"item_id,title\n", None),
        (b"item_id\n1\n\n2\n", None),
    ],
)
def test_a_faulty_line_of_csv_is_named(tmp_path: Path, content: bytes, words: str | None) -> None:
    csv_items(tmp_path, content)
    if words is None:
        sides(tmp_path)
        return
    with pytest.raises(DataError) as caught:
        sides(tmp_path)
    assert str(caught.value).startswith("`items.csv` must")
    assert words in str(caught.value)


def test_a_faulty_line_of_json_is_named(tmp_path: Path) -> None:
    csv_items(tmp_path, "")
    (tmp_path / "items.csv").unlink()
    for line in ('{"item_id": "2"', "[1]", '{"a": NaN}', '{"a": ' + "[" * 100_000):
        (tmp_path / "items.jsonl").write_text('{"item_id": "1"}\n\n' + line)
        with pytest.raises(DataError, match=r"`items\.jsonl` must hold one JSON .* in line 3"):
            sides(tmp_path)


def test_a_mapped_title_takes_the_place_of_a_column_of_that_name(tmp_path: Path) -> None:
    csv_items(tmp_path, "item_id,title,name\n1,a,b\n")
    _, found = sides(tmp_path, columns={"title": "name"})
    assert found["items"].rows() == [("1", "b")]


def test_ids_that_match_nothing_are_counted(tmp_path: Path) -> None:
    out = Folder.at(tmp_path)
    for number, ids in enumerate((["1", "2"], ["2", "3", "3"])):
        events = pl.DataFrame({"item_id": ids, "user_id": ["u"] * len(ids)})
        out.child("interactions").write_table(f"{number}.parquet", events.to_arrow())
    out.write_table("items.parquet", pl.DataFrame({"item_id": ["001", "02", "3"]}).to_arrow())
    assert tables.unmatched(out, "item") == {
        "items_not_described": 2,
        "items_described_without_events": 2,
    }


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_titles_stand_in_the_interactions_where_no_table_has_them(
    tmp_path: Path, form: str
) -> None:
    rows = {
        "user_id": ["u", "u", "v", "v"],
        "item_id": ["1", "2", "1", "3"],
        "timestamp": [1, 2, 3, 4],
        "Name": [None, "two", "one", "three"],
        "secret": ["a", "b", "c", "d"],
    }
    write = {"csv": "write_csv", "jsonl": "write_ndjson", "parquet": "write_parquet"}[form]
    getattr(pl.DataFrame(rows), write)(tmp_path / f"interactions.{form}")
    counts, found = sides(tmp_path, columns={"title": "Name"})
    assert dict(found["items"].iter_rows()) == {"1": "one", "2": "two", "3": "three"}
    assert counts["num_items_titled"] == 3
    (tmp_path / "items.csv").write_text("item_id,Name\n1,uno\n")
    if form == "csv":
        assert dict(sides(tmp_path, columns={"title": "Name"})[1]["items"].iter_rows()) == {
            "1": "uno"
        }
