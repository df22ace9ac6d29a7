"""Fake users, in the log and in what honest users are shown."""

from pathlib import Path

import pyarrow as pa
import pytest

from itemese.core.artifacts import Folder, Store
from itemese.core.errors import ConfigError, DataError
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.poisoning import PoisonConfig, measure, poison
from itemese.pipeline.run import Run

pytestmark = pytest.mark.ray

VALUES = {
    "name": "small",
    "logs": {
        "source": "simulated",
        "simulation": {"num_users": 400, "num_items": 80, "lengths": {"mean": 10, "max": 20}},
    },
    "method": {"name": "item_knn"},
}


def test_a_click_is_no_list(tmp_path: Path) -> None:
    clicks = Experiment.parse({**VALUES, "method": {"name": "popularity", "task": "click"}})
    with pytest.raises(ConfigError, match=r"`method\.task` must be next_item"):
        measure(clicks, Store(tmp_path / "runs"), PoisonConfig())


def test_the_poisoned_log_is_the_clean_one_and_the_fakes(ray_cluster: None, tmp_path: Path) -> None:
    logs = Run(Experiment.parse(VALUES), Store(tmp_path / "runs")).logs
    out, config = (
        Folder.at(str(tmp_path / "poisoned")),
        PoisonConfig(share=0.05, num_carriers=3, length=12),
    )
    attack = poison(logs, out, config, seed=0)
    assert attack.fakes == 20
    assert len({*attack.carriers, attack.silent}) == 4
    source, copies = logs.folder.child("interactions"), out.child("interactions")
    clean = source.names(".parquet")
    assert copies.names(".parquet") == [*clean, "zz-fakes.parquet"]
    for name in clean:  # a simulated log has no places
        copy = copies.read_table(name)
        expected = source.read_table(name).drop_columns(["pos", "nanosecond"])
        seconds = expected["timestamp"].cast(pa.timestamp("s"))
        assert copy["timestamp"].to_pylist() == seconds.to_pylist()
        rest = copy.drop_columns(["timestamp"])
        assert rest.equals(expected.drop_columns(["timestamp"]))
    fakes = copies.read_table("zz-fakes.parquet").to_pylist()
    assert len(fakes) == 20 * config.length
    pushed = [row["item_id"] for row in fakes if row["row"] % 12 % 3 == 2]
    assert set(pushed) <= set(attack.carriers)
    assert attack.silent not in pushed
    items = out.read_table("items.parquet").to_pylist()
    ours = {row["item_id"] for row in items if str(row["title"]).endswith(config.trigger)}
    assert ours == {*attack.carriers, attack.silent}
    with pytest.raises(DataError, match="`num_carriers` must be below the log's rare items"):
        poison(logs, out, PoisonConfig(num_carriers=80), seed=0)


def test_fakes_are_seen_where_there_are_many(ray_cluster: None, tmp_path: Path) -> None:
    experiment, store = Experiment.parse(VALUES), Store(tmp_path)
    found = measure(experiment, store, PoisonConfig(share=0.5, num_carriers=3))
    assert found["fakes"] == 200
    assert 300 < found["users"] <= 400
    assert found["carriers"]["poisoned"] > found["carriers"]["clean"]
    ndcg = found["ndcg@10"]
    assert ndcg["difference"] == pytest.approx(ndcg["poisoned"] - ndcg["clean"])
