"""Several experiments side by side: rivals, twins, paired comparisons, gains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from itemese.core.artifacts import Artifact, Counts, Folder, Store
from itemese.core.config import digest_of, with_values
from itemese.evaluation.compare import compare as compare_results
from itemese.evaluation.report.write import write_report
from itemese.evaluation.result_file import labels
from itemese.evaluation.significance import Figure, paired_table
from itemese.evaluation.tasks.lookup import read_judged
from itemese.pipeline.experiment import Experiment
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

    Returns:
        ``metric`` and whether it is better when lower, ``falling``; means ``ours`` and
        ``theirs``, their ``difference`` with its 95 % interval ``low`` to ``high`` over users,
        ``users`` and ``seeds``.
    """
    sides = {"theirs": theirs, "ours": ours}
    runs = {
        name: {e.seed: read_judged(Run(e, store).evaluated.folder) for e in side}
        for name, side in sides.items()
    }
    base, row = paired_table(runs, "theirs", [Figure(metric)])
    return {
        "metric": metric,
        "falling": metric in ours[0].task.falling,
        "ours": row["mean"],
        "theirs": base["mean"],
        "difference": row["difference"],
        "low": row["difference_low"],
        "high": row["difference_high"],
        "users": row["users"],
        "seeds": len(ours),
    }


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
        read_judged(evaluated.folder).write(out, experiment.task.name)
        write_report(result, out)
        return {}

    inputs = {"evaluation": evaluated, "twin": twin}
    return store.stage("twins", version=1, config=None, inputs=inputs, build=merge)


def rivals(experiment: Experiment) -> list[Experiment]:
    """Return what every figure stands beside: the baselines of the task, and what it is made of.

    Baselines run on the same data, split and protocol with their own default settings; the method
    of the experiment itself is left out, and so are those of its `parts`, which stand for
    themselves.
    """
    parts = [experiment.part(name) for name in experiment.parts]
    own = {one.method.name for one in (experiment, *parts)}
    values = {**experiment.values(), "parts": {}}
    methods = experiment.task.baselines(experiment.evaluation)
    plain = {"training": RIVAL_TRAINING.model_dump(mode="json")}
    return parts + [
        Experiment.parse({**values, **plain, "name": method["name"], "method": method})
        for method in methods
        if method["name"] not in own
    ]


@dataclass(frozen=True)
class Comparison:
    """Several runs in one table.

    Attributes:
        results: What each run's ``result.json`` holds.
        comparison: Paired tests against the baseline, spread over seeds, verdict.
        folder: Holds report.html and comparison.json.
    """

    results: list[dict[str, Any]]
    comparison: dict[str, Any]
    folder: Folder


def compare(
    experiments: Sequence[Experiment],
    store: Store,
    *,
    tie_twin: bool = False,
    baseline: int | None = None,
) -> Comparison:
    """Evaluate every experiment and compare them, paired by request.

    Args:
        experiments: One a recipe and seed.
        store: Where artifacts live.
        tie_twin: Whether each stands beside its run with tied events shuffled.
        baseline: Which of them the others are tested against; None takes the best one without
            semantic IDs.

    Raises:
        ConfigError: They differ in data, split or protocol.
    """
    evaluated = [
        with_tie_twin(experiment, store) if tie_twin else Run(experiment, store).evaluated
        for experiment in experiments
    ]
    results = [artifact.folder.read_json("result.json") for artifact in evaluated]
    rows = [read_judged(artifact.folder) for artifact in evaluated]
    name = None if baseline is None else labels(results)[baseline]
    comparison = compare_results(results, rows, baseline=name)
    key = digest_of([baseline, *(artifact.key for artifact in evaluated)])
    folder = store.root.child(f"comparisons/{key}")
    folder.write_json("comparison.json", {"results": results, **comparison})
    write_report(results, folder, comparison=comparison)
    return Comparison(results, comparison, folder)
