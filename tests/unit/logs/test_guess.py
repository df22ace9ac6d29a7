"""Files that `init` meets: what is read all the same, and what each other one is refused with."""

from pathlib import Path

import polars as pl
import pytest

from itemese.core.errors import DataError
from itemese.logs import guess as module
from itemese.logs.guess import guess

HEAD = b"user,item,time\n"
ROW = b"1,2,1600000000\n"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + HEAD + ROW,
        HEAD.replace(b",", b";") + ROW.replace(b",", b";"),
        b"user,item,time,note\n" + ROW[:-1] + b',"two\nlines"\n',
        HEAD + "Jos\u00e9,2,1600000000\n".encode(),
    ],
    ids=["byte order mark", "semicolons", "quoted lines", "umlauts"],
)
def test_text_of_any_export_is_read(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_bytes(content)
    found = guess(file)
    assert (found.columns["user_id"], found.columns["timestamp"]) == ("user", "time")
    assert (found.rows, found.timestamp_unit) == (1, "seconds")


def test_whole_numbers_of_parquet_are_ids(tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    pl.DataFrame({"user": [7], "item": [2], "time": [1_600_000_000]}).write_parquet(file)
    assert guess(file).users == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("log.csv", b"", "must hold at least one row; got none. Give another file."),
        ("log.csv", HEAD, "must hold at least one row; got none. Give another file."),
        ("log.csv", HEAD + b"Jos\xe9,2,1600000000\n", r"invalid utf-8.*Convert it to UTF-8\."),
        ("log.parquet", b"PAR1xxx", "must be a readable parquet file"),
        ("log.jsonl", b'{"user":1\n', "must be a readable jsonl file"),
        ("log.csv", None, r"must be a file; got the folder .* Name one file in it"),
        ("log.xlsx", HEAD, r"must end in \.csv.*; got '\.xlsx'. Rename it"),
    ],
)
def test_what_is_no_log_is_refused_with_the_remedy(
    name: str, content: bytes | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(DataError, match=said):
        guess(file)


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{name}.*No such file"):
        guess(tmp_path / name)


def test_a_sample_of_a_long_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 10)
    file = tmp_path / "log.csv"
    file.write_bytes(HEAD + ROW * 1_000)
    assert guess(file).rows == 10


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        ("Article Title", ["tea", "tea", "rice"], True),
        ("product_name", ["tea", "tea", "rice"], True),
        ("title", ["tea", "tea", "rice"], True),
        ("title", ["a review", "another review", "a third"], False),
        ("customer name", ["Ada", "Ada", "Ada"], False),
    ],
)
def test_a_title_is_one_of_the_item(
    name: str, values: list[str], found: bool, tmp_path: Path
) -> None:
    file = tmp_path / "log.csv"
    rows = {"user": [1, 2, 3], "item": [1, 1, 2], "time": [1_600_000_000] * 3, name: values}
    pl.DataFrame(rows).write_csv(file)
    assert (guess(file).columns.get("title") == name) == found
