"""Tables in folders of parts, at any depth."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError
from itemese.logs import sources
from itemese.logs.config import LogsConfig

WRITE = {"csv": "write_csv", "jsonl": "write_ndjson", "parquet": "write_parquet"}


def write(path: Path, form: str, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame({"user_id": ["u"], "item_id": [f"i{number}"], "timestamp": [number]})
    getattr(frame, WRITE[form])(path)


@pytest.mark.parametrize("ending", [True, False], ids=["named", "bare"])
@pytest.mark.parametrize("form", WRITE)
@pytest.mark.parametrize("home", ["interactions", "interactions.{form}", "."])
def test_parts_at_any_depth_are_read(
    inline: Any, tmp_path: Path, home: str, form: str, ending: bool
) -> None:
    root = tmp_path / "in" / home.format(form=form)
    end = f".{form}" if ending else ""
    write(root / f"part-0{end}", form, 0)
    write(root / "day=1" / f"part-1{end}", form, 1)
    write(root / "day=2" / "hour=0" / f"part-2{end}", form, 2)
    write(root / "2024" / "01" / f"part-3{end}", form, 3)
    for hidden in (f".part-5{end}", f"_temporary/part-6{end}", f".backup/part-7{end}"):
        write(root / hidden, form, 9)
    (root / "_SUCCESS").touch()
    if form != "parquet":
        (root / f"part-6{end}").write_text("\n" if form == "jsonl" else "")
    (root / "README").write_text("Parts of a log.")
    values = {"source": form, "path": str(tmp_path / "in")}
    good, _ = inline(values)
    assert sorted(good["item_id"]) == ["i0", "i1", "i2", "i3"]
    assert sources.plan(LogsConfig.parse(values)).left_out == ["day", "hour"]


@pytest.mark.parametrize("form", WRITE)
def test_folders_of_the_path_are_columns(inline: Any, tmp_path: Path, form: str) -> None:
    folders = {"view%20all": "view all", "007": "007", "__HIVE_DEFAULT_PARTITION__": None}
    for number, name in enumerate(folders):
        write(tmp_path / "interactions" / f"event={name}" / f"part.{form}", form, number)
        write(tmp_path / "items" / f"kind={name}" / f"part.{form}", form, number)
    values = {"source": form, "path": str(tmp_path)}
    good, _ = inline(values)
    assert dict(good.select("item_id", "event").rows()) == {
        f"i{number}": text for number, text in enumerate(folders.values())
    }
    items = sources.plan(LogsConfig.parse(values)).read_items
    assert items is not None
    kinds = items(Folder.at(tmp_path)).select("item_id", "kind").rows()
    assert dict(kinds) == {f"i{number}": text for number, text in enumerate(folders.values())}
    write(tmp_path / "interactions" / f"part.{form}", form, 9)
    with pytest.raises(DataError, match=rf"got 'event', which is absent in 'part\.{form}'"):
        sources.plan(LogsConfig.parse(values))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["interactions/a.csv", "interactions/b.parquet"], "parts of one form; got 'b.parquet'"),
        (
            ["interactions/a.csv", "interactions/x=1/b.csv.zst"],
            "got 'x=1/b.csv.zst' beside",
        ),
        (
            ["interactions.csv", "interactions/a.csv"],
            "got interactions/ and interactions.csv.",
        ),
        (["interactions.csv", "items.csv", "items/a.csv"], "one table of items; got items/ and"),
        (["a.csv", "day=1/users.csv"], "must hold interactions.csv"),
    ],
)
def test_what_would_be_read_in_part_is_refused(
    tmp_path: Path, names: list[str], words: str
) -> None:
    for name in names:
        write(tmp_path / "part.csv", "csv", 1)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "part.csv").rename(tmp_path / name)
    with pytest.raises(DataError) as caught:
        sources.plan(LogsConfig.parse({"source": "csv", "path": str(tmp_path)}))
    assert words in str(caught.value)
