import gzip
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.logs import sources, tables
from itemese.logs.config import LogsConfig, expand

CSV = "user_id,item_id,timestamp\nu,i,1\n"
ZIPPED = gzip.compress(CSV.encode(), mtime=0)  # test ids must be alike in all workers


def plan(**values: Any) -> sources.Plan:
    return sources.plan(LogsConfig.parse(values, "logs"))


def test_data_folder_is_filled_in_and_other_unset_variables_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ITEMESE_DATA", "/somewhere")
    assert expand("$ITEMESE_DATA/x", "logs.path") == "/somewhere/x"
    assert expand("s3://bucket/${ITEMESE_DATA}", "logs.path") == "s3://bucket//somewhere"
    monkeypatch.delenv("ITEMESE_DATA")
    assert expand("$ITEMESE_DATA/x", "logs.path") == "data/x"
    with pytest.raises(ConfigError, match=r"`logs.path` must name variables .* got \$NO_SUCH"):
        expand("$NO_SUCH/x", "logs.path")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"source": "parquet"}, "given a `path`"),
        ({"source": "parqet"}, "parquet"),
        ({"source": "csv", "path": "x", "colums": {}}, "Did you mean 'columns'"),
        ({"source": "csv", "path": "x", "columns": {"userid": "u"}}, "Did you mean 'user_id'"),
        ({"source": "csv", "path": "x", "columns": {"item_id": "user_id"}}, "named twice"),
        ({"source": "csv", "path": "x", "columns": {"rating": "stars", "pos": "stars"}}, "twice"),
        ({"source": "csv", "path": "x", "max_quarantined_share": 2}, "less than or equal to 1"),
        *[
            ({"source": "csv", "path": "x", "delimiter": text}, "one ASCII character")
            for text in ("::", "", "\u00a6", '"', "\n", "\r", "\\t")
        ],
        ({"source": "csv", "path": "x", "num_blocks": 0}, "greater than or equal to 1"),
    ],
)
def test_a_bad_section_is_refused_in_one_sentence(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match="`logs") as caught:
        LogsConfig.parse(values, "logs")
    assert words in str(caught.value)


def test_a_missing_path_names_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "clicks").mkdir()
    with pytest.raises(DataError, match=r"existing file or folder.*Did you mean 'clicks'"):
        plan(source="csv", path=str(tmp_path / "click"))


def test_a_folder_without_interactions_lists_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id\n")
    with pytest.raises(DataError, match=r"must hold interactions.csv; got \['items.csv'\]"):
        plan(source="csv", path=str(tmp_path))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_column_that_is_absent_gets_the_nearest_name(tmp_path: Path, form: str) -> None:
    frame = pl.DataFrame({"user": ["u"], "item_id": ["i"], "timestamp": [1]})
    writers = {"csv": "write_csv", "jsonl": "write_ndjson", "parquet": "write_parquet"}
    getattr(frame, writers[form])(tmp_path / f"interactions.{form}")
    with pytest.raises(DataError) as caught:
        plan(source=form, path=str(tmp_path))
    assert "`logs.columns.user_id` must name a column of the input; got 'user_id'" in str(
        caught.value
    )
    assert "Did you mean 'user'?" in str(caught.value)
    found = plan(source=form, path=str(tmp_path), columns={"user_id": "user"})
    assert found.names == {"user_id": "user", "item_id": "item_id", "timestamp": "timestamp"}


def test_an_optional_column_is_taken_when_there_and_insisted_on_when_named(tmp_path: Path) -> None:
    path = tmp_path / "interactions.csv"
    path.write_text("user_id,item_id,timestamp,pos,stars,split\nu,i,1,0,5,x\n")
    found = plan(source="csv", path=str(path), columns={"rating": "stars"})
    assert found.names["pos"] == "pos"
    assert found.names["rating"] == "stars"
    assert found.left_out == ["split"]
    with pytest.raises(DataError, match=r"`logs.columns.event` .* got 'kind'"):
        plan(source="csv", path=str(path), columns={"event": "kind"})


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_null_leaves_an_optional_column_unread(inline: Any, tmp_path: Path, form: str) -> None:
    frame = pl.DataFrame(
        {"user_id": ["u"] * 2, "item_id": ["i", "j"], "timestamp": [1, 2], "event": [[1], [2]]}
    )
    frame = frame.with_columns(rating=pl.Series(["x", "y"]), pos=pl.Series([7, None]))
    if form == "csv":
        frame = frame.with_columns(event=pl.lit("click"))
    writers = {"csv": "write_csv", "jsonl": "write_ndjson", "parquet": "write_parquet"}
    getattr(frame, writers[form])(tmp_path / f"interactions.{form}")
    unread = {"event": None, "rating": None, "pos": None}
    values = {"source": form, "path": str(tmp_path), "columns": unread}
    assert plan(**values).left_out == ["event", "pos", "rating"]
    # The same after a trip through YAML, as bundles store it.
    kept = LogsConfig.parse(values).model_dump(mode="json")
    for given in (values, kept):
        good, bad = inline(given)
        assert len(bad) == 0
        assert good.select("item_id", "event", "rating", "pos").rows() == [
            ("i", None, None, None),
            ("j", None, None, None),
        ]
    (tmp_path / "items.csv").write_text("item_id,title\ni,a\n")
    read = plan(**values | {"columns": unread | {"title": None}})
    assert read.read_items is not None
    out = Folder.at(tmp_path / "out").create()
    tables.write_items(out, read.read_items(out), read.side_columns)
    assert out.read_table("items.parquet").to_pylist() == [{"item_id": "i", "title": None}]


def test_null_leaves_a_publishers_column_unread(tmp_path: Path) -> None:
    path = str(grouplens(tmp_path, "loose"))
    columns = {"rating": None, "title": None}
    found = plan(source="movielens_1m", path=path, columns=columns)
    assert found.names == {n: n for n in ("user_id", "item_id", "timestamp")}
    assert found.side_columns.title is None


def test_a_column_must_be_in_every_file(tmp_path: Path) -> None:
    (tmp_path / "interactions").mkdir()
    (tmp_path / "interactions" / "a.csv").write_text(CSV)
    (tmp_path / "interactions" / "b.csv").write_text("user_id,item_id\nu,i\n")
    with pytest.raises(DataError, match=r"got 'timestamp', which is absent in 'b\.csv'\. Give all"):
        plan(source="csv", path=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (CSV.encode("utf-16"), "header line in UTF-8"),
        (b"user_id,item_id,user_id\n", "columns ['user_id'] twice"),
        (b"\n1,2,3\n", "no column names"),
        (b"user_id,item_id,timestamp\ru,i,1\ru,j,2\r", "got carriage returns alone"),
        (b"user_id;item_id;timestamp\n", "'user_id;item_id;timestamp' is read as one name"),
        (b"user_id,item_id, user_id\n", "columns ['user_id'] twice"),
        (b'"user_id,item_id,timestamp\nu,i,1\n', "must close the quotes in its header"),
        (ZIPPED, "must be text by its name and `logs.source`; got gzip"),
        (b"PAR1\x15\x04\n" + bytes(20) + b"PAR1", "got Parquet"),
        (b"x" * (2 << 20), "header line below 1 MiB"),
    ],
)
def test_a_bad_header_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "interactions.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        plan(source="csv", path=str(tmp_path))
    assert words in str(caught.value)


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    columns = [pa.array([text]) for text in ("u", "i", "1", "v")]
    table = pa.table(columns, names=["user_id", "item_id", "timestamp", "user_id"])
    pq.write_table(table, tmp_path / "interactions.parquet")
    with pytest.raises(DataError, match=r"distinct columns; got \['user_id'\] twice"):
        plan(source="parquet", path=str(tmp_path))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("https://example.com/log.csv", "Files are not read over https: download it first."),
        ("nothing://bucket/log.csv", "must be a local path or an address of a store"),
        ("x.csv.zst", "'x.csv.zst', which is compressed otherwise. Decompress it."),
        ("x.csv.bz2", "which is compressed otherwise"),
        ("packed", "'interactions.csv.zst', which is compressed otherwise"),
        ("other", "Set `logs.source: parquet`."),
        ("*.csv", "Patterns are not read"),
        ("sides", "must hold items that end in one of .parquet, .csv, .csv.gz"),
    ],
)
def test_a_path_that_cannot_be_read_says_why(tmp_path: Path, path: str, words: str) -> None:
    for name in ("x.csv.zst", "x.csv.bz2", "packed/interactions.csv.zst", "sides/items.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sides" / "interactions.csv").write_text(CSV)
    (tmp_path / "other").mkdir()
    pl.DataFrame({"user_id": []}).write_parquet(tmp_path / "other" / "interactions.parquet")
    where = path if "://" in path else str(tmp_path / path)
    with pytest.raises(DataError) as caught:
        plan(source="csv", path=where)
    assert str(caught.value).startswith("`logs.path` must")
    assert words in str(caught.value)
    assert "storage" not in str(caught.value)


@pytest.mark.parametrize("name", ["interactions.parquet", "interactions.csv.gz"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>no such thing</html>")
    form = name.split(".")[1]
    with pytest.raises(DataError, match="must hold readable files"):
        plan(source=form, path=str(tmp_path))


def test_a_byte_order_mark_is_no_part_of_the_first_name(inline: Any, tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_bytes(b"\xef\xbb\xbf" + CSV.encode())
    good, _ = inline({"source": "csv", "path": str(tmp_path)})
    assert good.select("user_id", "item_id", "timestamp").rows() == [("u", "i", 1)]


GROUPLENS = {
    "ratings.dat": "1::10::5::978300760\n2::20::3::978302109\n",
    "movies.dat": '10::Am\u00e9lie (2001)::Comedy|Romance\n20::Big, "The" (1988)::Drama\n',
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
}


def grouplens(folder: Path, kind: str) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(folder / "ml-1m.zip", "w") as archive:
            archive.writestr("../../evil.txt", "x")
            for name, text in GROUPLENS.items():
                archive.writestr(f"ml-1m/{name}", text.encode("latin-1"))
        return folder
    home = folder / "ml-1m" if kind == "nested" else folder
    home.mkdir(exist_ok=True)
    for name, text in GROUPLENS.items():
        (home / name).write_bytes(text.encode("latin-1"))
    return folder


@pytest.mark.parametrize("kind", ["zip", "nested", "loose"])
def test_grouplens_layout_is_read_where_it_lies(inline: Any, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    values = {"source": "movielens_1m", "path": str(grouplens(source, kind))}
    before = sorted(source.rglob("*"))
    good, bad = inline(values)
    assert good.select("user_id", "item_id", "rating", "timestamp").rows() == [
        ("1", "10", 5.0, 978300760),
        ("2", "20", 3.0, 978302109),
    ]
    assert len(bad) == 0
    found = sources.plan(LogsConfig.parse(values))
    items = found.read_items(Folder.at(tmp_path)).to_dicts()  # type: ignore[misc]
    assert items[0] == {
        "item_id": "10",
        "title": "Am\u00e9lie (2001)",
        "year": 2001,
        "genres": ["Comedy", "Romance"],
    }
    assert items[1]["title"] == 'Big, "The" (1988)'
    users = found.read_users(Folder.at(tmp_path)).to_dicts()  # type: ignore[misc]
    assert users[0]["age_group"] == "Under 18"
    assert users[0]["occupation"] == "K-12 student"
    assert users[1]["occupation"] == "self-employed"
    # Archives are read member by member and never unpacked, so no name in one can escape.
    assert sorted(source.rglob("*")) == before
    assert not (tmp_path / "evil.txt").exists()


def test_the_projects_own_form_wins_over_the_publishers(tmp_path: Path) -> None:
    grouplens(tmp_path, "loose")
    (tmp_path / "interactions.csv").write_text(CSV)
    found = plan(source="movielens_1m", path=str(tmp_path))
    assert [source.name for source in found.interactions] == ["interactions.csv"]


@pytest.mark.parametrize("content", [b"1::a\n2::b::c::d\n", b"1::a::b::c::d\n"])
def test_a_publishers_table_that_is_not_its_form_is_one_sentence(
    tmp_path: Path, content: bytes
) -> None:
    (grouplens(tmp_path, "loose") / "movies.dat").write_bytes(content)
    found = plan(source="movielens_1m", path=str(tmp_path))
    assert found.read_items is not None
    with pytest.raises(DataError, match=r"must hold readable files; got 'movies\.dat'"):
        found.read_items(Folder.at(tmp_path))


def test_missing_publisher_files_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fetch_data.py movielens_1m"):
        plan(source="movielens_1m", path=str(tmp_path))
    with pytest.raises(DataError, match=r"fetch_data.py amazon_beauty"):
        plan(source="amazon_2014", path=str(tmp_path))
    (tmp_path / "reviews_Beauty_5.json.gz").write_bytes(gzip.compress(b"{}\n"))
    with pytest.raises(DataError, match=r"must hold meta_Beauty.json.gz beside"):
        plan(source="amazon_2014", path=str(tmp_path))
