import hashlib
import http.server
import io
import json
import multiprocessing
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from itemese.core.errors import ConfigError, DataError
from itemese.logs.fetch import DATA_SETS, RECORD, Remote, fetch


def archive(**members: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return content.getvalue()


CONTENT = archive(readme="films")


@pytest.fixture
def server() -> Iterator[str]:
    """A loopback server: /good.zip, /page.zip (no archive), /torn.zip and /slow.zip (end early)."""

    stopped = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            bodies = {"/page.zip": b"<html>Log in</html>", "/slow.zip": bytes(3 << 20)}
            body = bodies.get(self.path, CONTENT)
            self.send_response(404 if self.path == "/gone.zip" else 200)
            torn = self.path in ("/torn.zip", "/slow.zip")
            self.send_header("Content-Length", str(len(body) + (1000 if torn else 0)))
            self.end_headers()
            self.wfile.write(body)
            if self.path == "/slow.zip":
                stopped.wait(30)

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        stopped.set()
        listening.shutdown()


def sets(url: str, md5: str | None = None) -> dict[str, tuple[Remote, ...]]:
    return {"films": (Remote(url, "films.zip", md5),)}


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_download_is_verified_recorded_and_not_repeated(server: str, tmp_path: Path) -> None:
    good = sets(f"{server}/good.zip", hashlib.md5(CONTENT).hexdigest())
    place = fetch("films", tmp_path, data_sets=good)
    assert place == str(tmp_path / "films")
    assert (tmp_path / "films" / "films.zip").read_bytes() == CONTENT
    record = json.loads((tmp_path / "films" / RECORD).read_text())["films.zip"]
    assert record["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert left(tmp_path) == [RECORD, "films", "films.zip"]
    # A second call needs no network.
    gone = sets("http://127.0.0.1:9/good.zip", hashlib.md5(CONTENT).hexdigest())
    assert fetch("films", tmp_path, data_sets=gone) == place


@pytest.mark.parametrize(
    ("path", "md5", "words"),
    [
        ("good.zip", "0" * 32, "must have the published md5"),
        ("page.zip", None, "must be a .zip file"),
        ("gone.zip", None, "404"),
        ("torn.zip", None, "Place the file by hand"),
    ],
)
def test_a_bad_download_leaves_nothing(
    server: str, tmp_path: Path, path: str, md5: str | None, words: str
) -> None:
    # The second of two files fails: nothing of the first stays either, nor a new root.
    both = (Remote(f"{server}/good.zip", "first.zip"), Remote(f"{server}/{path}", "films.zip", md5))
    for root in (tmp_path, tmp_path / "new"):
        with pytest.raises(DataError, match=words):
            fetch("films", root, data_sets={"films": both})
        assert left(tmp_path) == []


def test_a_killed_download_leaves_no_data_set(server: str, tmp_path: Path) -> None:
    killed = multiprocessing.get_context("fork").Process(
        target=fetch, args=("films", tmp_path), kwargs={"data_sets": sets(f"{server}/slow.zip")}
    )
    killed.start()
    while not any(path.stat().st_size for path in tmp_path.rglob("films.zip")):
        assert killed.is_alive()
        time.sleep(0.01)
    killed.kill()
    killed.join()
    assert not (tmp_path / "films").exists()
    assert fetch("films", tmp_path, data_sets=sets(f"{server}/good.zip"))


def test_a_missing_file_joins_those_that_are_there(server: str, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "first.zip").write_bytes(CONTENT)
    both = (Remote("http://127.0.0.1:9/x", "first.zip"), Remote(f"{server}/good.zip", "second.zip"))
    fetch("films", tmp_path, data_sets={"films": both})
    assert left(tmp_path) == [RECORD, "films", "first.zip", "second.zip"]
    assert set(json.loads((tmp_path / "films" / RECORD).read_text())) == {"first.zip", "second.zip"}


def test_data_sets_go_to_a_local_folder() -> None:
    with pytest.raises(ConfigError, match="must be a local folder; got 's3://bucket/data'"):
        fetch("movielens_1m", "s3://bucket/data")


def test_an_unreachable_address_says_where_to_put_the_file(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x.zip"
        with pytest.raises(DataError) as caught:
            fetch("films", tmp_path, data_sets=sets(url))
    message = str(caught.value)
    assert str(tmp_path / "films" / "films.zip") in message
    assert "logs.source: simulated" in message
    assert left(tmp_path) == []


def test_a_file_that_changed_since_it_was_recorded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    place = tmp_path / "films" / "films.zip"
    place.write_bytes(CONTENT)
    byhand = sets("http://127.0.0.1:9/x.zip")
    fetch("films", tmp_path, data_sets=byhand)  # placed by hand: recorded now
    place.write_bytes(archive(other="x"))
    with pytest.raises(DataError, match="must have the recorded sha256"):
        fetch("films", tmp_path, data_sets=byhand)


def test_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'movielens_1m'"):
        fetch("movielens1m", tmp_path)


def test_addresses_are_the_publishers() -> None:
    [movielens] = DATA_SETS["movielens_1m"]
    assert movielens.url == "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
    assert movielens.md5 == "c4d9eecfca2ab87c1945afe126590906"
    assert [remote.name for remote in DATA_SETS["amazon_beauty"]] == [
        "reviews_Beauty_5.json.gz",
        "meta_Beauty.json.gz",
    ]
