"""A bundle of five items, small enough to check every answer by hand."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import uvicorn
from starlette.testclient import TestClient

from itemese.core.artifacts import Folder
from itemese.core.bundle import write_bundle
from itemese.core.schema import Catalog, Histories
from itemese.core.vectors import SemanticIds
from itemese.methods.base import Inputs, Need
from itemese.methods.lookup import method_of, parse_method_config
from itemese.serving.config import ServeArgs, ServingConfig
from itemese.serving.engine import Recommender
from itemese.serving.http.app import create_app
from itemese.serving.replica import Replica
from itemese.serving.users.sqlite import SqliteUsers

URL = "http://127.0.0.1:8000"
TOKEN = "a-long-secret-token"
MARKUP = "<script>alert('a')</script> & | \u00e9"


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    table = pa.table(
        {
            "item_id": ["a", "b", "c", "d", "e"],
            "title": ["Alpha", MARKUP, None, "Delta", "Epsilon"],
            "genres": [["Drama"], ["Drama", "Comedy"], ["Comedy"], None, []],
            "year": pa.array([1990, 1991, 1991, None, 1999], pa.int64()),
            "free": [True, False, True, False, None],
            "train_count": pa.array([10, 50, 30, 50, 0], pa.int64()),
        }
    )
    return Catalog.from_table(table)


@pytest.fixture(scope="session")
def write_tiny(catalog: Catalog) -> Callable[..., str]:
    """Write a bundle into a folder and return its URI; by default popularity counts a 1 .. e 5."""

    def make(
        place: Path,
        method: dict[str, Any] | None = None,
        state: dict[str, torch.Tensor] | None = None,
        exclude_seen: bool = True,
    ) -> str:
        folder = Folder.at(place)
        write_bundle(
            folder,
            experiment={"name": "tiny", "seed": 0, "evaluation": {"exclude_seen": exclude_seen}},
            method_config=method or {"name": "popularity", "max_history": 3},
            state=state or {"count_of": torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).double()},
            catalog=catalog,
            metrics={"test/recall@10": {"value": 0.25, "low": 0.2, "high": 0.3}},
            ancestry={},
        )
        return folder.uri

    return make


@pytest.fixture
def bundle_of(tmp_path: Path, write_tiny: Callable[..., str]) -> Callable[..., str]:
    """Write such a bundle under the test's own folder, by name."""
    return lambda *args, name="bundle", **more: write_tiny(tmp_path / name, *args, **more)


@pytest.fixture(scope="session")
def tiny_engine(write_tiny, tmp_path_factory) -> Recommender:
    """An engine of the default bundle, for tests that do not change it."""
    return Recommender.load(write_tiny(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def copying_bundle(bundle_of: Callable[..., str], catalog: Catalog) -> str:
    """The bundle of an untrained encoder that may copy: b followed a, nothing followed d."""
    config = {"name": "sasrec", "dim": 8, "max_history": 6, "copying": {}}
    method = method_of(parse_method_config(config))
    times, split = np.zeros((2, 4), np.int8)
    items = np.array([0, 1, 0, 1], np.int32)
    past = Histories(["u", "v"], np.array([0, 2, 4]), items, times, split)
    module = method.build(Inputs(catalog, lambda: iter([past])))
    return bundle_of(method.config.model_dump(mode="json"), module.state_dict())


@pytest.fixture
def language_bundle(tmp_path: Path, catalog: Catalog) -> Callable[..., str]:
    """Write the bundle of an untrained method of semantic IDs; four tuples of nine are no item."""

    def make(**settings: Any) -> str:
        ids = SemanticIds(np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 2]], np.int32), (3, 3))
        config = parse_method_config({"name": "semantic_id_lm", "max_history": 6, **settings})
        method = method_of(config)
        module = method.build(Inputs(catalog, lambda: iter(()), artifacts={Need.SEMANTIC_IDS: ids}))
        folder = Folder.at(tmp_path / config.name)
        write_bundle(
            folder,
            experiment={"name": "tiny"},
            method_config=config.model_dump(mode="json"),
            state={name: tensor.clone() for name, tensor in module.state_dict().items()},
            catalog=catalog,
            artifacts={Need.SEMANTIC_IDS: ids},
            metrics={},
            ancestry={},
        )
        return folder.uri

    return make


@pytest.fixture
def fault():
    """Check the one shape of errors; return the message."""

    def check(answer, status, field=None):
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.json().keys() == {"error"}
        error = answer.json()["error"]
        assert error.keys() == {"code", "message", "field", "request_id"}
        assert error["field"] == field
        assert error["request_id"]
        return error["message"]

    return check


class Direct:
    """A service that answers at once with an engine."""

    def __init__(self, engine):
        self.engine = engine
        self.is_ready = True
        self.fault = None
        self.forgot = 0

    def ready(self):
        return self.is_ready

    def describe(self):
        return self.engine.describe()

    async def answer(self, query, key):
        if self.fault:
            raise self.fault
        return self.engine.answers([query])[0]

    def find(self, text, limit):
        return self.engine.find(text, limit)

    def column_values(self):
        return self.engine.column_values

    def forget(self):
        self.forgot += 1
        self.engine.forget()


@pytest.fixture
def direct():
    return Direct


@pytest.fixture
def world(tiny_engine, tmp_path):
    users = SqliteUsers(tmp_path / "users.sqlite")
    service = Direct(tiny_engine)

    def client(token=None, address=("127.0.0.1", 5), keep=True, **more):
        limits = ServingConfig(max_body_bytes=20_000, max_history=50, **more)
        app = create_app(service, limits, token, users if keep else None)
        return TestClient(app, URL, client=address, raise_server_exceptions=False)

    yield SimpleNamespace(service=service, client=client)
    users.close()


@pytest.fixture
def client(world):
    return world.client()


@pytest.fixture
def replica(bundle_of, tmp_path):
    """A whole replica in this process: queue, engine, users and HTTP."""
    args = ServeArgs(
        bundle=bundle_of(),
        token=TOKEN,
        users=str(tmp_path / "live.sqlite"),
        max_body_bytes=20_000,
        max_history=50,
        body_seconds=1.0,
    )
    replica = Replica(args)
    yield replica
    replica.close()


@pytest.fixture
def live(replica):
    """A client of it, without a socket."""
    app = replica.__serve_build_asgi_app__()
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@contextlib.contextmanager
def _listening(replica):
    """Yield the address of a replica behind a real server on a free port of this machine."""
    config = uvicorn.Config(replica.__serve_build_asgi_app__(), log_level="warning")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="session")
def listening():
    """What puts a replica behind a real server: `with listening(replica) as url`."""
    return _listening


@pytest.fixture
def served(replica):
    """The same behind a real server."""
    with _listening(replica) as url:
        yield SimpleNamespace(url=url, token=TOKEN, replica=replica)
