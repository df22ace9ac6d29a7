"""Several experiments side by side: rivals, twins, paired comparisons, gains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from itemese.core.artifacts import Artifact, Counts, Folder, Store
from itemese.core.config import digest_of, with_values
from itemese.evaluation.compare import compare as compare_results
from itemese.evaluation.per_user_clicks import read_judged
from itemese.evaluation.report.write import write_report
from itemese.methods.base import Task
from itemese.methods.lookup import method_of
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.result import mean_gain
from itemese.pipeline.run import Run
from itemese.training.config import TrainingConfig

RIVAL_TRAINING = TrainingConfig(batch_size=64, learning_rate=0.003, max_epochs=15, patience=3)
"""How the SASRec of `rivals` is trained, whatever the experiment's own training is."""


def gain(
    ours: Sequence[Experiment], theirs: Sequence[Experiment], store: Store, metric: str
) -> dict[str, Any]:
    """Return how much better one recipe ranks test users than another, with its interval.

    Args:
        ours: The same recipe on several seeds.
        theirs: The other one on the same seeds.
        store: Where artifacts live.
        metric: For example ``"ndcg@10"``, or ``"auc"`` of clicks.
    """
    us, them = (
        [read_judged(Run(e, store).evaluated.folder) for e in side] for side in (ours, theirs)
    )
    return mean_gain(us, them, metric)


def with_tie_twin(experiment: Experiment, store: Store) -> Artifact:
    """Evaluate an experiment, and beside it the run whose tied events are in random order.

    The twin trains and is tested on the shuffled order; its figures stand in the same result as
    ``test_ties_shuffled/...``.
    """
    shuffled = Experiment.parse(with_values(experiment.values(), {"sequences.ties": "shuffle"}))
    twin, evaluated = Run(shuffled, store).evaluated, Run(experiment, store).evaluated

    def merge(out: Folder) -> Counts:
        result, other = (a.folder.read_json("result.json") for a in (evaluated, twin))
        figures = {n.partition("/")[2]: v for n, v in other["metrics"].items() if n[:5] == "test/"}
        result["metrics"] |= {f"test_ties_shuffled/{n}": v for n, v in figures.items()}
        out.write_json("result.json", result)
        read_judged(evaluated.folder).write(out, "per_user.parquet")
        write_report(result, out)
        return {}

    inputs = {"evaluation": evaluated, "twin": twin}
    return store.stage("twins", version=1, config=None, inputs=inputs, build=merge)


def rivals(experiment: Experiment) -> list[Experiment]:
    """Return what every figure stands beside: popularity, the transition graph, softmax SASRec.

    They run on the same data, split and protocol with their own default settings; the method of
    the experiment itself is left out. Beside a method that predicts clicks stands popularity.
    """
    values = dict(experiment.values())
    methods: list[dict[str, Any]]
    methods = [{"name": name} for name in ("popularity", "transition_graph", "sasrec")]
    if method_of(experiment.method).task is Task.CLICK:
        expected = {"num_negatives": experiment.evaluation.click_negatives}
        methods = [{"name": "popularity", "task": "click", **expected}]
    plain = {"training": RIVAL_TRAINING.model_dump(mode="json")}
    return [
        Experiment.parse({**values, **plain, "name": method["name"], "method": method})
        for method in methods
        if method["name"] != experiment.method.name
    ]


@dataclass(frozen=True)
class Comparison:
    """Several runs in one table.

    Attributes:
        results: What each run's ``result.json`` holds.
        comparison: Paired tests against the baseline, spread over seeds, verdicts.
        folder: Holds report.html and comparison.json.
    """

    results: list[dict[str, Any]]
    comparison: dict[str, Any]
    folder: Folder


def compare(
    experiments: Sequence[Experiment], store: Store, *, tie_twin: bool = False
) -> Comparison:
    """Evaluate every experiment and compare them user by user.

    Args:
        experiments: One a recipe and seed.
        store: Where artifacts live.
        tie_twin: Whether each stands beside its run with tied events shuffled.

    Raises:
        ConfigError: They differ in data, split or protocol.
    """
    evaluated = [
        with_tie_twin(experiment, store) if tie_twin else Run(experiment, store).evaluated
        for experiment in experiments
    ]
    results = [artifact.folder.read_json("result.json") for artifact in evaluated]
    rows = [read_judged(artifact.folder) for artifact in evaluated]
    comparison = compare_results(results, rows)
    folder = store.root.child(f"comparisons/{digest_of([a.key for a in evaluated])}")
    folder.write_json("comparison.json", {"results": results, **comparison})
    write_report(results, folder, comparison=comparison)
    return Comparison(results, comparison, folder)
