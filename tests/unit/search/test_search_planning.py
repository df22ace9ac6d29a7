"""How many trials run side by side, so that none waits for ever, and what varying is worth."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from itemese.core.errors import ConfigError
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.search.config import SearchConfig
from itemese.search.planning import Plan, Walk, check_effect, plan_resources
from itemese.search.space import Space, check_space

RATE = {"kind": "uniform", "low": 0.0001, "high": 0.9}
OWN_RATE = {"training.learning_rate": RATE}
ALONE, ONE_LESS = Plan({"CPU": 1}, 4), Plan({"CPU": 1}, 3)
ON_WORKERS = {"num_workers": 2}
SASREC = {"name": "sasrec", "dim": 8}
TEXT_ONLY = {"name": "rsllm", "item_form": "text"}


@pytest.fixture
def log(tmp_path: Path) -> str:
    rows = [{"user_id": "u", "item_id": f"i{place}", "timestamp": place} for place in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "interactions.parquet")
    return str(tmp_path)


def make_space(
    log: str, parameters: dict[str, Any], study: dict[str, Any] | None = None, **sections: Any
) -> Space:
    recipe = {"name": "r", "logs": {"source": "parquet", "path": log}, "method": SASREC}
    config = {"recipe": "-", "parameters": parameters, **(study or {})}
    return check_space(SearchConfig.parse(config), recipe | sections)


def plan(space: Space, *, limit: int | None = None, **resources: float) -> Plan:
    return plan_resources(space, Experiment.parse(space.recipe), dict(resources), limit=limit)


def test_one_cpu_a_trial_as_many_as_the_cluster_holds(log: str) -> None:
    space = make_space(log, OWN_RATE)
    assert plan(space, CPU=8.0) == Plan({"CPU": 1}, 8)
    assert plan(space, CPU=8.0, limit=3) == Plan({"CPU": 1}, 3)
    assert plan(space, CPU=2.0, limit=9) == Plan({"CPU": 1}, 2)
    assert plan(space, CPU=8.0, GPU=2.0) == Plan({"CPU": 1, "GPU": 1}, 2)


def test_latencies_are_measured_one_at_a_time(log: str) -> None:
    timed = make_space(log, OWN_RATE, {"minimise": ["latency_p95_ms"]})
    assert plan(timed, CPU=8.0) == Plan({"CPU": 1}, 1)
    counted = make_space(log, OWN_RATE, {"minimise": ["parameters"]})
    assert plan(counted, CPU=8.0) == Plan({"CPU": 1}, 8)


def test_a_stage_on_ray_data_inside_a_trial_finds_a_free_cpu(log: str) -> None:
    sizes = {"embeddings.max_tokens": {"kind": "choice", "choices": [64, 128]}}
    space = make_space(log, sizes, method={"name": "tiger"})
    assert plan(space, CPU=4.0) == ONE_LESS
    assert plan(space, CPU=2.0) == Plan({"CPU": 1}, 1)
    assert plan(space, CPU=1.0) == Plan({"memory": 1}, 1)


@pytest.mark.parametrize(
    ("path", "choices", "method", "found"),
    [
        # Its recipe embeds nothing, the other trials embed text.
        ("fusion", ["collaborative", "text"], "aligned_sasrec", ONE_LESS),
        ("fusion", ["text", "collaborative"], "aligned_sasrec", ALONE),
        # Its recipe takes the intentions from a template, the other trials have them written.
        ("intentions", [None, "intention"], "eager_llm", ONE_LESS),
        ("intentions", ["intention", None], "eager_llm", ALONE),
    ],
)
def test_a_method_that_reads_more_than_the_recipes_own_finds_a_free_cpu(
    log: str, path: str, choices: list[Any], method: str, found: Plan
) -> None:
    varied = {f"method.{path}": {"kind": "choice", "choices": choices}}
    space = make_space(log, varied, method={"name": method, path: choices[0]}, knowledge={})
    assert plan(space, CPU=4.0) == found


def test_trial_with_workers_reserves_nothing_and_its_workers_fit(log: str) -> None:
    on_workers = {**ON_WORKERS, "cpus_per_worker": 1.5}
    space = make_space(log, OWN_RATE, training=on_workers)
    assert plan(space, CPU=12.0) == Plan({"memory": 1}, 4)
    assert plan(space, CPU=12.0, limit=3) == Plan({"memory": 1}, 3)
    assert plan(space, CPU=2.0) == Plan({"memory": 1}, 1)
    space = make_space(log, OWN_RATE, training={**on_workers, "use_gpu": True})
    assert plan(space, CPU=12.0, GPU=4.0) == Plan({"memory": 1}, 2)


def test_early_stopping_of_workers_is_refused(log: str) -> None:
    space = make_space(log, OWN_RATE, {"asha": {"grace_period": 1}}, training=ON_WORKERS)
    with pytest.raises(
        ConfigError, match=r"`asha` must be left out.*got `training.num_workers: 2`"
    ):
        plan(space, CPU=4.0)


def test_a_varied_recommender_trains_in_its_trial(log: str) -> None:
    varied = {"recommender.training.learning_rate": RATE}
    rsllm = {"method": {"name": "rsllm"}, "recommender": {"method": SASREC}}
    assert plan(make_space(log, varied, **rsllm), CPU=4.0) == ALONE
    rsllm["recommender"] = {"method": SASREC, "training": ON_WORKERS}
    message = r"`recommender.training.num_workers` must be 0 where .*rate varies.*; got 2"
    with pytest.raises(ConfigError, match=message):
        plan(make_space(log, varied, **rsllm), CPU=4.0)
    assert plan(make_space(log, OWN_RATE, **rsllm), CPU=4.0) == ALONE, "all trials share one"
    rsllm["method"] = TEXT_ONLY
    forms = {"method.item_form": {"kind": "choice", "choices": ["text", "text_id"]}}
    with pytest.raises(ConfigError, match=r"where method\.item_form varies"):
        plan(make_space(log, forms, **rsllm), CPU=4.0)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_start_trains_in_its_trial_where_the_method_varies(log: str, depth: int) -> None:
    start: dict[str, Any] = {"training": ON_WORKERS}
    if depth == 2:
        start = {"start": start}
    rsllm = {"method": TEXT_ONLY, "start": start}
    assert plan(make_space(log, OWN_RATE, **rsllm), CPU=4.0) == ALONE
    section = ".".join(["start"] * depth)
    for path in ("method.temperature", f"{section}.training.learning_rate"):
        with pytest.raises(ConfigError) as caught:
            plan(make_space(log, {path: RATE}, **rsllm), CPU=4.0)
        assert f"`{section}.training.num_workers` must be 0 where {path}" in str(caught.value)


def test_a_parameter_is_judged_where_its_condition_holds(log: str) -> None:
    form = {"kind": "choice", "choices": ["text", "text_id"]}
    rsllm = {"method": TEXT_ONLY, "recommender": {"method": SASREC}}

    def check(**when: str) -> None:
        rate = {**RATE, "when": {"method.item_form": when["form"]}} if when else RATE
        varied = {"method.item_form": form, "recommender.training.learning_rate": rate}
        space = make_space(log, varied, **rsllm)
        check_effect(space, Run(Experiment.parse(space.recipe), Walk()))

    check(form="text_id")
    for when in ({"form": "text"}, {}):
        with pytest.raises(ConfigError, match=r"must have an effect.*\(rsllm\) uses no recomm"):
            check(**when)


def test_what_only_the_recommender_reads_has_an_effect(log: str) -> None:
    sizes = {"embeddings.max_tokens": {"kind": "choice", "choices": [64, 128]}}
    sections = {
        "method": {"name": "rsllm"},
        "recommender": {"method": {"name": "aligned_sasrec"}},
    }
    space = make_space(log, sizes, **sections)
    check_effect(space, Run(Experiment.parse(space.recipe), Walk()))
    space = make_space(log, sizes)
    with pytest.raises(ConfigError, match=r"\(sasrec\) uses no embeddings"):
        check_effect(space, Run(Experiment.parse(space.recipe), Walk()))
