"""GroupLens' own layout of MovieLens-1M: ``*.dat`` files in a folder or in ``ml-1m.zip``.

The files are Latin-1, fields are separated by ``::`` and nothing is quoted. Terms of use and
format: https://files.grouplens.org/datasets/movielens/ml-1m-README.txt
"""

import io
import zipfile
from functools import partial

import polars as pl

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError
from itemese.logs import files
from itemese.logs.chunks import plan_text
from itemese.logs.config import LogsConfig
from itemese.logs.files import Source
from itemese.logs.inputs import Plan, text_rows

ARCHIVE = "ml-1m.zip"
RATINGS = ("user_id", "item_id", "rating", "timestamp")
MOVIES = ("item_id", "title", "genres")
USERS = ("user_id", "gender", "age_code", "occupation_code", "zip_code")

_AGES = {1: "Under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56+"}
_OCCUPATIONS = (
    "other",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)


def plan_movielens(config: LogsConfig, folder: Folder, name: str | None) -> Plan:
    """Plan the publisher's files.

    Args:
        config: The recipe's section.
        folder: Holds ``ratings.dat``, or ``ml-1m/ratings.dat``, or ``ml-1m.zip``.
        name: The archive itself, if the path names it.

    Raises:
        DataError: None of these is there.
    """
    found = {stem: _find(folder, name, f"{stem}.dat") for stem in ("ratings", "movies", "users")}
    missing = [f"{stem}.dat" for stem, source in found.items() if source is None]
    if missing:
        message = (
            f"`logs.path` must hold ratings.dat, movies.dat and users.dat, {ARCHIVE} or "
            f"interactions.parquet; got {folder.uri!r} without {missing}. "
            "Run `python jobs/fetch_data.py movielens_1m`."
        )
        raise DataError(message)
    ratings, movies, users = (source for source in found.values() if source is not None)
    chunks = plan_text([ratings], "dat", config.num_blocks, [(RATINGS, 0)])
    return Plan(
        chunks,
        {column: column for column in RATINGS},
        interactions=[ratings],
        max_rows=text_rows([ratings]),
        sides=[movies, users],
        read_items=partial(_read_movies, movies),
        read_users=partial(_read_users, users),
    )


def _find(folder: Folder, name: str | None, wanted: str) -> Source | None:
    """Return one of the three files, loose or inside the archive."""
    if name is None:
        for home in (folder, folder.child("ml-1m")):
            if home.exists(wanted):
                return files.file_in(home, wanted)
        if not folder.exists(ARCHIVE):
            return None
    archive = files.file_in(folder, name or ARCHIVE)
    filesystem, path = folder.filesystem()
    with filesystem.open_input_file(f"{path}/{archive.name}") as stream:
        try:
            members = zipfile.ZipFile(stream).infolist()
        except files.UNREADABLE as error:
            message = f"`{archive.name}` must be a whole zip archive; got: {error}. Fetch it again."
            raise DataError(message) from None
    for member in members:
        if member.filename.rpartition("/")[2] == wanted:
            return Source(folder, archive.name, member.file_size, archive.mtime_ns, member.filename)
    return None


def _read_dat(source: Source, columns: tuple[str, ...]) -> pl.DataFrame:
    """Read a small ``::`` file into text columns."""
    with source.open() as stream:
        text = stream.read().decode("latin-1").replace("::", "\x1f")
        return pl.read_csv(
            io.BytesIO(text.encode()),
            has_header=False,
            new_columns=list(columns),
            separator="\x1f",
            quote_char=None,
            infer_schema=False,
        )


def _read_movies(source: Source, _artifact: Folder) -> pl.DataFrame:
    """Return item_id, title (with its year, as published), year and a list of genres."""
    year = pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int64)
    movies = _read_dat(source, MOVIES)
    return movies.select("item_id", "title", year.alias("year"), pl.col("genres").str.split("|"))


def _read_users(source: Source, _artifact: Folder) -> pl.DataFrame:
    """Return the demographics, codes beside the words that the publisher's readme gives them."""
    users = _read_dat(source, USERS)
    age = pl.col("age_code").cast(pl.Int64, strict=False)
    occupation = pl.col("occupation_code").cast(pl.Int64, strict=False)
    return users.select(
        "user_id",
        "gender",
        age,
        age.replace_strict(_AGES, default=None, return_dtype=pl.String).alias("age_group"),
        occupation,
        occupation.replace_strict(
            dict(enumerate(_OCCUPATIONS)), default=None, return_dtype=pl.String
        ).alias("occupation"),
        "zip_code",
    )
