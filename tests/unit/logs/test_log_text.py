import csv
import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from itemese.core.artifacts import Folder
from itemese.logs.chunks import plan_text, read_header
from itemese.logs.files import file_in
from itemese.logs.json_lines import parse_json
from itemese.logs.text import blocks, text_pieces

HEADER = b"user_id,item_id,timestamp\n"


def chunks_of(path: Path, num_blocks: int | None, form: str = "csv") -> list[Any]:
    sources = [file_in(Folder.at(path.parent), path.name)]
    headers = [read_header(sources[0], ",") if form == "csv" else ((), 0)]
    return plan_text(sources, form, num_blocks, headers)


@given(
    lines=st.lists(st.binary(max_size=9).filter(lambda b: b"\n" not in b), max_size=12),
    ends=st.booleans(),
    num_blocks=st.integers(1, 12),
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_line_belongs_to_exactly_one_chunk_however_the_file_is_cut(
    tmp_path: Path, lines: list[bytes], ends: bool, num_blocks: int
) -> None:
    body = b"\n".join(lines) + (b"\n" if ends else b"")
    path = tmp_path / "x.csv"
    path.write_bytes(HEADER + body)
    got = {}
    for chunk in chunks_of(path, num_blocks):
        for offset, block in blocks(chunk):
            place = offset
            for line in block.splitlines(keepends=True) if b"\r" not in block else _cut(block):
                assert place not in got
                got[place] = line
                place += len(line)
    assert b"".join(got[place] for place in sorted(got)) == body
    assert all(line.count(b"\n") <= 1 for line in got.values())


def _cut(block: bytes) -> list[bytes]:
    parts = [part + b"\n" for part in block.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return [part for part in parts if part]


def test_blocks_smaller_than_a_line_still_give_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("itemese.logs.text.BLOCK_BYTES", 3)
    path = tmp_path / "x.csv"
    path.write_bytes(HEADER + b"aaaaaaaaaa,b,1\nc,d,2\n\ne,f,3")
    for num_blocks in (1, 2, 5):
        text = b"".join(b for c in chunks_of(path, num_blocks) for _, b in blocks(c))
        assert text == b"aaaaaaaaaa,b,1\nc,d,2\n\ne,f,3"


def test_a_csv_block_names_each_fault_with_its_line_and_place(tmp_path: Path) -> None:
    body = b'u1,"i,1",5\n\nu2,i2\nu3,i3,4,5\nu4,\xff,6\r\nu5,"i5,7\nu6,i6,8\r\nu7,"say ""x""",9\n'
    path = tmp_path / "x.csv"
    path.write_bytes(HEADER + body)
    [piece] = text_pieces(chunks_of(path, 1)[0], ["user_id", "item_id", "timestamp"], ",", [])
    assert piece.columns.rows() == [
        ("u1", "i,1", "5"),
        ("u6", "i6", "8"),
        ("u7", 'say "x"', "9"),
    ]
    assert (piece.num_rows, piece.num_lines) == (7, 8)
    assert piece.line.tolist() == [0, 6, 7]
    start = len(HEADER)
    assert piece.row.tolist() == [start, start + body.index(b"u6"), start + body.index(b"u7")]
    assert [(line, why, raw) for _, line, why, raw in piece.bad] == [
        (2, "too few fields", "u2,i2"),
        (3, "too many fields", "u3,i3,4,5"),
        (4, "bad encoding", "u4,\\xff,6"),
        (5, "unreadable line", 'u5,"i5,7'),
    ]


def slow_csv(body: bytes) -> tuple[list[tuple[str, ...]], int]:
    """Python's csv module, one line at a time: (good rows, bad rows)."""
    good, bad = [], 0
    for raw in body.split(b"\n"):
        line = raw[:-1] if raw.endswith(b"\r") else raw
        if not line:
            continue
        try:
            text = line.decode()
            assert "\r" not in text
            rows = list(csv.reader([text, ",,"]))  # an open quote swallows the second line
        except (UnicodeDecodeError, AssertionError):
            bad += 1
            continue
        if len(rows) == 2 and len(rows[0]) == 3:
            good.append(tuple(rows[0]))
        else:
            bad += 1
    return good, bad


FIELDS = st.sampled_from(
    [b"u1", b"7", b"", b" x ", b'"q"', b'"a,b"', b'"d""d"', b"\xc3\xa9", b"\xff", b"5\r6", b'"open']
)
LINES = st.lists(FIELDS, min_size=1, max_size=5).map(b",".join)


@given(st.lists(LINES, max_size=12).map(b"\n".join), st.sampled_from([b"\n", b"\r\n", b""]))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_corrupt_csv_agrees_with_a_slow_reader(tmp_path: Path, body: bytes, end: bytes) -> None:
    path = tmp_path / "x.csv"
    content = body + end
    path.write_bytes(HEADER + content)
    names = ["user_id", "item_id", "timestamp"]
    pieces = [p for chunk in chunks_of(path, 3) for p in text_pieces(chunk, names, ",", [])]
    rows = [row for piece in pieces for row in piece.columns.rows()]
    good, bad = slow_csv(content)
    assert rows == good
    assert sum(len(piece.bad) for piece in pieces) == bad
    assert sum(piece.num_rows for piece in pieces) == len(good) + bad


@pytest.mark.parametrize("exact", [["u"], ["t"]], ids=["polars", "python"])
def test_json_values_keep_their_text_whatever_their_neighbours_are(
    tmp_path: Path, exact: list[str]
) -> None:
    records = [
        {"u": 1, "t": 12_345_678_901, "more": [1]},
        {"u": "a", "t": 1.5},
        {"u": None, "other": {}},
    ]
    lines = [json.dumps(record) for record in records]
    lines[1:1] = ["not json", "[1]", '{"u": 1}{"u": 2}', ""]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines) + "\n")
    [piece] = text_pieces(chunks_of(path, 1, "jsonl")[0], ["u", "t"], ",", exact)
    assert piece.columns.rows() == [("1", "12345678901"), ("a", "1.5"), (None, None)]
    assert piece.line.tolist() == [0, 5, 6]
    assert [(line, why) for _, line, why, _ in piece.bad] == [
        (1, "unreadable line"),
        (2, "unreadable line"),
        (3, "unreadable line"),
    ]


def test_numbers_of_json_stay_as_they_are_written() -> None:
    numbers = ["1.10", "1.1", "12e4", "120000", "1500000000.123456789", "-0.0", "1E5"]
    lines = [f'{{"i": {number}, "r": 4.0}}' for number in numbers] + [
        '{"i": NaN}',
        '{"i": "\\ud800"}',
    ]
    frame, faults = parse_json("\n".join(lines).encode(), ["i", "r"], ["i"])
    assert frame["i"].to_list() == numbers
    assert frame["r"].to_list() == ["4.0"] * len(numbers)
    assert faults == {7: "unreadable line", 8: "unreadable line"}


def test_a_gzipped_file_is_read_in_one_chunk_with_the_same_rows(tmp_path: Path) -> None:
    body = HEADER + b"".join(b"u%d,i,%d\n" % (n, n) for n in range(50))
    (tmp_path / "x.csv").write_bytes(body)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(body))
    names = ["user_id", "timestamp"]
    [packed] = chunks_of(tmp_path / "x.csv.gz", 4)
    plain = chunks_of(tmp_path / "x.csv", 4)
    assert len(plain) == 4
    one = list(text_pieces(packed, names, ",", []))
    four = [piece for chunk in plain for piece in text_pieces(chunk, names, ",", [])]
    assert pl.concat([p.columns for p in one]).equals(pl.concat([p.columns for p in four]))
    places = [[r for p in pieces for r in p.row.tolist()] for pieces in (one, four)]
    assert places[0] == places[1]
    assert places[0] == sorted(set(places[0]))
