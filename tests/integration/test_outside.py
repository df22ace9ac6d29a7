"""An artifact and a method from outside the package: one module each, and nothing registered."""

import numpy as np
import pytest

from itemese.core.artifacts import Folder, Store
from itemese.core.errors import ConfigError
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.serving.engine import Recommender
from outside.last_seen import LastSeen

pytestmark = pytest.mark.ray

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


def test_unknown_modules_are_named() -> None:
    with pytest.raises(ConfigError, match=r"`method\.name` must be a module .* 'nothing\.here'"):
        Experiment.parse({**VALUES, "method": {"name": "nothing.here"}})
    run = Run(Experiment.parse(VALUES), Store("."))
    with pytest.raises(ConfigError, match=r"`needs` must name known artifacts"):
        run.artifact("outside.newest")  # a module without STAGE
