"""An artifact and a method from outside the package: one module each, and nothing registered."""

import numpy as np
import pyarrow as pa
import pytest

from itemese.core.artifacts import Folder, Store
from itemese.core.errors import ConfigError
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.serving.engine import Recommender
from itemese.serving.query import Query
from itemese.testing import method_checks
from itemese.testing.planted import NUM_ITEMS
from outside.last_seen import LastSeen

pytestmark = pytest.mark.ray

SEEN = LastSeen(np.random.default_rng(0).permutation(NUM_ITEMS))

VALUES = {
    "name": "newest",
    "logs": {
        "source": "simulated",
        "simulation": {
            "num_users": 60,
            "num_items": 20,
            "lengths": {"mean": 6, "min": 4, "max": 9},
        },
    },
    "method": {"name": "outside.newest"},
}


def test_a_method_reads_an_artifact_that_a_package_outside_adds(ray_cluster, tmp_path) -> None:
    store = Store(tmp_path / "runs")
    run = Run(Experiment.parse(VALUES), store)
    result = run.result
    made = run.artifact("outside.last_seen")
    assert result["artifacts"]["outside.last_seen"] == made.key
    assert made.manifest.inputs == {"sequences": run.sequences.key}
    times = LastSeen.read(made.folder).time_of
    run.bundle(Folder.at(tmp_path / "bundle"))
    engine = Recommender.load(tmp_path / "bundle")
    catalog = engine.catalog
    (first, *_) = engine.recommend([catalog.item_ids[0]], k=1, exclude=[])
    newest = np.argsort(-times, kind="stable")
    assert first.item_id == catalog.item_ids[next(i for i in newest if i != 0)]

    later = Experiment.parse({**VALUES, "artifacts": {"outside.last_seen": {"offset": 5}}})
    other = Run(later, store)
    assert (LastSeen.read(other.artifact("outside.last_seen").folder).time_of == times + 5).all()
    assert other.sequences.key == run.sequences.key
    wrong = Experiment.parse({**VALUES, "artifacts": {"outside.last_seen": {"offest": 5}}})
    with pytest.raises(ConfigError, match=r"artifacts\.outside\.last_seen\.offest.*'offset'"):
        Run(wrong, store).artifact("outside.last_seen")


OUTSIDE = {
    "outside.newest": {"outside.last_seen": SEEN},
    "outside.by_side": {},
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{what}")
        for name, artifacts in OUTSIDE.items()
        for what, check in method_checks(name, artifacts=artifacts).items()
    ],
)
def test_its_author_runs_the_checks_of_every_method(check) -> None:
    check()


def test_unknown_modules_are_named() -> None:
    with pytest.raises(ConfigError, match=r"`method\.name` must be a module .* 'nothing\.here'"):
        Experiment.parse({**VALUES, "method": {"name": "nothing.here"}})
    run = Run(Experiment.parse(VALUES), Store("."))
    with pytest.raises(ConfigError, match=r"`needs` must name known artifacts"):
        run.artifact("outside.newest")  # a module without STAGE


def write_cities(folder) -> None:
    """Write a log whose users take items of their own city only: ten items in each of three."""
    draw = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{user % 3}{item}", 100 + step)
        for user in range(60)
        for step, item in enumerate(draw.permutation(10)[:8])
    ]
    names = ("user_id", "item_id", "timestamp")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    log = Folder.at(folder)
    log.write_table("interactions.parquet", pa.table({n: list(v) for n, v in columns.items()}))
    users = {"user_id": [f"u{n}" for n in range(60)], "city": [f"c{n % 3}" for n in range(60)]}
    log.write_table("users.parquet", pa.table(users))


def test_a_method_reads_fields_users_and_a_graph_from_logs_to_answers(ray_cluster, tmp_path):
    write_cities(tmp_path / "log")
    values = {
        "name": "cities",
        "logs": {"source": "parquet", "path": str(tmp_path / "log")},
        "sequences": {"num_shards": 2},
        "features": {"user": ["city"]},
        "method": {"name": "outside.by_city"},
    }
    run = Run(Experiment.parse(values), Store(tmp_path / "runs"))
    result = run.result
    assert {"fields", "users", "graph"} <= set(result["artifacts"])
    assert result["metrics"]["test/recall@10"]["value"] > 0.95, "three of ten items are unseen"
    run.bundle(Folder.at(tmp_path / "bundle"))
    engine = Recommender.load(tmp_path / "bundle")
    for query in (
        Query(("i00",), k=5, user_id="u1"),
        Query(("i00",), k=5, fields={"user": {"city": "c1"}}),
    ):
        (answer,) = engine.answers([query])
        assert all(item.item_id.startswith("i1") for item in answer.items), "of city c1"
