"""The client against the application, in this process."""

import pytest
from starlette.testclient import TestClient

from itemese.errors import ConfigError
from itemese.serving.app import create_app
from itemese.serving.client import Client
from itemese.serving.config import ServingConfig
from itemese.serving.engine import Recommender
from itemese.serving.query import QueryError
from itemese.serving.users import SqliteUsers


@pytest.fixture
def engine(bundle_of):
    return Recommender.load(bundle_of())


@pytest.fixture
def client(engine, tmp_path, direct):
    users = SqliteUsers(tmp_path / "users.sqlite")
    app = create_app(direct(engine), ServingConfig(), None, users)
    asked = Client("http://127.0.0.1:1")
    asked._http = TestClient(app, client=("127.0.0.1", 5), raise_server_exceptions=False)
    yield asked
    users.close()


def test_the_same_answers_as_in_process(client, engine):
    for ask in (
        lambda r: r.recommend(["e"], k=2, exclude=["d"]),
        lambda r: r.recommend([{"item_id": "e", "timestamp": 1}], filter={"genres": "Drama"}),
        lambda r: r.recommend([]),
        lambda r: r.score(["a"], ["b", "zz"]),
    ):
        assert ask(client) == ask(engine)
    assert client.describe()["model"] == engine.name


def test_the_same_errors_as_in_process(client, engine):
    for ask in (
        lambda r: r.recommend(["a"], filter={"genre": "Drama"}),
        lambda r: r.recommend([{"item_id": "a", "timestamp": 2}, {"item_id": "b", "timestamp": 1}]),
    ):
        with pytest.raises(QueryError) as here:
            ask(engine)
        with pytest.raises(QueryError) as there:
            ask(client)
        assert str(there.value) == str(here.value)
        assert there.value.field == here.value.field


@pytest.mark.parametrize("user", ["u", "a/b", "../x", "50% off?", "#1", "\u00e9 \u4f60"])
def test_users_of_any_name_are_kept_and_forgotten(client, user):
    assert client.keep(user, ["e", {"item_id": "d", "timestamp": 5, "event_id": "1"}]) == 2
    assert client.keep(user, [{"item_id": "d", "event_id": "1"}]) == 0
    found = client.recommend(user_id=user, k=2)
    assert [item.item_id for item in found] == ["c", "b"]
    assert client.score(None, ["a"], user_id=user)[0].score is not None
    assert client.forget(user) == 2
    assert client.recommend(user_id=user, k=1)[0].item_id == "b"


def test_nobody_there():
    client = Client("http://127.0.0.1:9", timeout_seconds=2)
    with pytest.raises(ConfigError, match="must be a service that answers"), client:
        client.describe()


def test_a_refused_token_is_told(engine, direct):
    app = create_app(direct(engine), ServingConfig(), "a-long-token")
    client = Client("http://127.0.0.1:1")
    client._http = TestClient(app)
    with pytest.raises(ConfigError, match="`Authorization` must be"):
        client.describe()
