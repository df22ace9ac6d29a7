"""How many trials run side by side, so that none waits for ever."""

from types import SimpleNamespace
from typing import Any

import pytest

from itemese.errors import ConfigError
from itemese.search.config import SearchConfig
from itemese.search.planning import Plan, plan_resources
from itemese.search.space import Space

RATE = {"kind": "uniform", "low": 0.001, "high": 0.1}
ON_RAY_DATA = {"embeddings.dim": {"kind": "int", "low": 2, "high": 9}}


def plan(
    resources: dict[str, float],
    parameters: dict[str, Any] | None = None,
    *,
    limit: int | None = None,
    workers: int = 0,
    asha: dict[str, int] | None = None,
    **more: Any,
) -> Plan:
    varied = parameters or {"training.learning_rate": RATE}
    config = SearchConfig.parse({"recipe": "r.yaml", "parameters": varied, "asha": asha} | more)
    training = SimpleNamespace(num_workers=workers, cpus_per_worker=1.5, use_gpu="GPU" in resources)
    recipe: Any = SimpleNamespace(training=training)
    return plan_resources(Space(config, {}, {}, ()), recipe, resources, limit=limit)


def test_one_cpu_a_trial_as_many_as_the_cluster_holds() -> None:
    assert plan({"CPU": 8.0}) == Plan({"CPU": 1}, 8)
    assert plan({"CPU": 8.0}, limit=3) == Plan({"CPU": 1}, 3)
    assert plan({"CPU": 2.0}, limit=9) == Plan({"CPU": 1}, 2)
    assert plan({"CPU": 8.0, "GPU": 2.0}) == Plan({"CPU": 1, "GPU": 1}, 2)


def test_latencies_are_measured_one_at_a_time() -> None:
    assert plan({"CPU": 8.0}, minimise=["latency_p95_ms"]) == Plan({"CPU": 1}, 1)
    assert plan({"CPU": 8.0}, minimise=["parameters"]) == Plan({"CPU": 1}, 8)


def test_a_stage_on_ray_data_inside_a_trial_finds_a_free_cpu() -> None:
    assert plan({"CPU": 4.0}, ON_RAY_DATA) == Plan({"CPU": 1}, 3)
    assert plan({"CPU": 2.0}, ON_RAY_DATA) == Plan({"CPU": 1}, 1)
    assert plan({"CPU": 1.0}, ON_RAY_DATA) == Plan({"memory": 1}, 1)


def test_trial_with_workers_reserves_nothing_and_its_workers_fit() -> None:
    assert plan({"CPU": 12.0}, workers=2) == Plan({"memory": 1}, 4)
    assert plan({"CPU": 12.0}, workers=2, limit=3) == Plan({"memory": 1}, 3)
    assert plan({"CPU": 2.0}, workers=2) == Plan({"memory": 1}, 1)
    assert plan({"CPU": 12.0, "GPU": 4.0}, workers=2) == Plan({"memory": 1}, 2)


def test_early_stopping_of_workers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`asha` must be left out.*got 2 workers"):
        plan({"CPU": 4.0}, workers=2, asha={"grace_period": 1})


def test_a_varied_recommender_trains_in_its_trial() -> None:
    rate = {"recommender.training.learning_rate": RATE}
    space = Space(SearchConfig.parse({"recipe": "r.yaml", "parameters": rate}), {}, {}, ())
    training = SimpleNamespace(num_workers=0, cpus_per_worker=1.0, use_gpu=False)
    for workers in (0, 2):
        above = SimpleNamespace(training=SimpleNamespace(num_workers=workers))
        recipe: Any = SimpleNamespace(training=training, upstream=above)
        if workers:
            with pytest.raises(ConfigError, match=r"`recommender.training.num_workers` must be 0"):
                plan_resources(space, recipe, {"CPU": 2.0}, limit=None)
        else:
            assert plan_resources(space, recipe, {"CPU": 2.0}, limit=None) == Plan({"CPU": 1}, 2)
