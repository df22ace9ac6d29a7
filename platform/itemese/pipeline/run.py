"""The story: logs -> sequences -> embeddings -> codebooks -> a trained method -> its evaluation.

Each step is a stage of the artifact store: it runs only if nobody ran the same one before.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from itemese.codebooks.stage import VERSION as CODEBOOKS_VERSION
from itemese.codebooks.stage import build_codebooks
from itemese.core.artifacts import Artifact, Counts, Folder, Store
from itemese.core.bundle import write_bundle
from itemese.core.config import digest_of, with_values
from itemese.core.schema import Catalog
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.embeddings.recommended import VERSION as RECOMMENDED_VERSION
from itemese.embeddings.recommended import append_recommender
from itemese.embeddings.stage import VERSION as EMBEDDINGS_VERSION
from itemese.embeddings.stage import build_embeddings
from itemese.evaluation.compare import compare as compare_results
from itemese.evaluation.per_user_clicks import read_judged
from itemese.evaluation.report.write import write_report
from itemese.knowledge.stage import VERSION as KNOWLEDGE_VERSION
from itemese.knowledge.stage import build_knowledge
from itemese.logs.stage import VERSION as LOGS_VERSION
from itemese.logs.stage import build_logs, fingerprint
from itemese.methods.base import Method, Need, Task
from itemese.methods.lookup import method_of
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.result import assemble_result, mean_gain, measure_costs, vectors_of
from itemese.pipeline.training_spec import training_spec
from itemese.sequences.stage import VERSION as SEQUENCES_VERSION
from itemese.sequences.stage import build_sequences
from itemese.training.config import TrainingConfig
from itemese.training.stage import VERSION as TRAINING_VERSION
from itemese.training.stage import train_model

_LOG = logging.getLogger(__name__)

RIVAL_TRAINING = TrainingConfig(batch_size=64, learning_rate=0.003, max_epochs=15, patience=3)
"""How the SASRec of `rivals` is trained, whatever the experiment's own training is."""

OnMetrics = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Prepared:
    """The artifacts that a method is built from; what it does not need is None."""

    logs: Artifact
    sequences: Artifact
    embeddings: Artifact | None
    codebooks: Artifact | None
    recommender: Artifact | None = None
    start: Artifact | None = None
    start_sequences: Artifact | None = None
    knowledge: Artifact | None = None

    def artifacts(self) -> dict[str, Artifact]:
        """Return those that exist, by stage."""
        return {name: found for name, found in vars(self).items() if found is not None}


def run(experiment: Experiment, store: Store) -> dict[str, Any]:
    """Do everything; return what ``result.json`` holds."""
    prepare(experiment, store)
    train(experiment, store)
    return evaluate(experiment, store).folder.read_json("result.json")  # type: ignore[no-any-return]


def read_logs(experiment: Experiment, store: Store) -> Artifact:
    """Parse the raw files into one table of interactions."""
    return _told(
        store.stage(
            "logs",
            version=LOGS_VERSION,
            config=experiment.logs,
            inputs={"raw": fingerprint(experiment.logs, experiment.data_seed)},
            build=lambda out: build_logs(experiment.logs, out, seed=experiment.data_seed),
        )
    )


def prepare(experiment: Experiment, store: Store) -> Prepared:
    """Make everything that the method is built from, in order."""
    logs = read_logs(experiment, store)
    sequences = _told(
        store.stage(
            "sequences",
            version=SEQUENCES_VERSION,
            config=experiment.sequences,
            inputs={"logs": logs, "data_seed": str(experiment.data_seed)},
            build=lambda out: build_sequences(
                experiment.sequences, logs.folder, out, seed=experiment.data_seed
            ),
        )
    )
    needs = method_of(experiment.method).reads()
    embeddings = codebooks = recommender = knowledge = None
    asked = experiment.knowledge
    if asked is not None and Need.KNOWLEDGE in needs:
        cache = store.root.child("cache/knowledge")
        knowledge = _told(
            store.stage(
                "knowledge",
                version=KNOWLEDGE_VERSION,
                config=asked,
                inputs={"sequences": sequences},
                build=lambda out: build_knowledge(asked, sequences.folder, cache, out),
            )
        )
    if Need.RECOMMENDER in needs or experiment.embeds_recommender:
        recommender = train(experiment.upstream, store)
    if needs & {Need.EMBEDDINGS, Need.SEMANTIC_IDS}:
        embeddings = _embed(experiment, store, sequences, recommender)
    if embeddings is not None and Need.SEMANTIC_IDS in needs:
        vectors = embeddings.folder
        codebooks = _told(
            store.stage(
                "codebooks",
                version=CODEBOOKS_VERSION,
                config=experiment.codebooks,
                inputs={
                    "embeddings": embeddings,
                    "sequences": sequences,
                    "seed": str(experiment.seed),
                },
                build=lambda out: build_codebooks(
                    experiment.codebooks, vectors, sequences.folder, out, seed=experiment.seed
                ),
            )
        )
    start = start_sequences = None
    if experiment.start is not None:
        start = train(experiment.preceding, store)
        start_sequences = prepare(experiment.preceding, store).sequences
    made = (embeddings, codebooks, recommender, start, start_sequences, knowledge)
    return Prepared(logs, sequences, *made)


def _embed(
    experiment: Experiment, store: Store, sequences: Artifact, recommender: Artifact | None
) -> Artifact:
    """Embed the items, then append the vectors of the recommender if they are a source.

    Text is embedded once for all recommenders, which differ by seed.
    """
    config = experiment.embeddings.model_copy(update={"recommender": None})
    embeddings = _told(
        store.stage(
            "embeddings",
            version=EMBEDDINGS_VERSION,
            config=config,
            inputs={"sequences": sequences},
            build=lambda out: build_embeddings(config, sequences.folder, out),
        )
    )
    wanted = experiment.embeddings.recommender
    if wanted is None or recommender is None:
        return embeddings
    made = {"sequences": sequences, "embeddings": embeddings, "training": recommender}
    before = embeddings.folder

    def build(out: Folder) -> Counts:
        vectors, parts = vectors_of(experiment.upstream, made)
        return append_recommender(wanted, before, vectors, out, parts=parts)

    return _told(
        store.stage(
            "recommended",
            version=RECOMMENDED_VERSION,
            config=wanted,
            inputs={"embeddings": embeddings, "recommender": recommender},
            build=build,
        )
    )


def train(experiment: Experiment, store: Store, *, on_metrics: OnMetrics | None = None) -> Artifact:
    """Train the method; validation metrics are in ``counts["best"]``.

    Args:
        experiment: What to train.
        store: Where artifacts live.
        on_metrics: Called after each validation with flat metrics (a search reports them).
    """
    prepared = prepare(experiment, store)
    key, spec = training_spec(experiment, prepared.artifacts(), store.root)
    return _told(
        store.stage(
            "training",
            version=TRAINING_VERSION,
            config=key,
            inputs={**prepared.artifacts()},
            build=lambda out: train_model(spec, out, on_metrics),
        )
    )


def final_model(experiment: Experiment, store: Store) -> Artifact:
    """Return what is tested and served: the trained model, or its refit if the protocol asks.

    A refit trains on validation events too, for the steps that validation selected; it can
    select nothing itself, and it never sees a test event.
    """
    trained = train(experiment, store)
    if not experiment.evaluation.refit:
        return trained
    prepared = prepare(experiment, store)
    steps = tuple(trained.counts["selected_steps"])
    key, spec = training_spec(experiment, prepared.artifacts(), store.root, refit=steps)
    return _told(
        store.stage(
            "refit",
            version=TRAINING_VERSION,
            config=key,
            inputs={**prepared.artifacts(), "training": trained},
            build=lambda out: train_model(spec, out),
        )
    )


def evaluate(experiment: Experiment, store: Store) -> Artifact:
    """Rank for every user; the artifact holds result.json, report.html and per_user.parquet."""
    prepared = prepare(experiment, store)
    trained, final = train(experiment, store), final_model(experiment, store)
    method: Method = method_of(experiment.method)
    models = {"training": trained, "model": final}
    return _told(
        store.stage(
            "evaluation",
            version=3,
            config=experiment,
            inputs={**models, **prepared.artifacts()},
            build=lambda out: assemble_result(
                experiment, method, {**prepared.artifacts(), **models}, out
            ),
        )
    )


def stage_names(experiment: Experiment) -> list[str]:
    """Return the names of training's stages in their order, which its metrics number."""
    return [stage.name for stage in method_of(experiment.method).stages()]


def costs(experiment: Experiment, store: Store) -> dict[str, float]:
    """Return what the trained model costs: parameters, and milliseconds a prediction here and now.

    It is no stage, because a time belongs to the machine and the moment.
    """
    made = {**prepare(experiment, store).artifacts(), "training": train(experiment, store)}
    return measure_costs(experiment, method_of(experiment.method), made)


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
    us, them = ([read_judged(evaluate(e, store).folder) for e in side] for side in (ours, theirs))
    return mean_gain(us, them, metric)


def with_tie_twin(experiment: Experiment, store: Store) -> Artifact:
    """Evaluate as `evaluate` does, and beside it the run whose tied events are in random order.

    The twin trains and is tested on the shuffled order; its figures stand in the same result as
    ``test_ties_shuffled/...``.
    """
    shuffled = Experiment.parse(with_values(experiment.values(), {"sequences.ties": "shuffle"}))
    twin, evaluated = evaluate(shuffled, store), evaluate(experiment, store)

    def merge(out: Folder) -> Counts:
        result, other = (a.folder.read_json("result.json") for a in (evaluated, twin))
        figures = {n.partition("/")[2]: v for n, v in other["metrics"].items() if n[:5] == "test/"}
        result["metrics"] |= {f"test_ties_shuffled/{n}": v for n, v in figures.items()}
        out.write_json("result.json", result)
        read_judged(evaluated.folder).write(out, "per_user.parquet")
        write_report(result, out)
        return {}

    inputs = {"evaluation": evaluated, "twin": twin}
    return _told(store.stage("twins", version=1, config=None, inputs=inputs, build=merge))


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
    judge = with_tie_twin if tie_twin else evaluate
    evaluated = [judge(experiment, store) for experiment in experiments]
    results = [artifact.folder.read_json("result.json") for artifact in evaluated]
    rows = [read_judged(artifact.folder) for artifact in evaluated]
    comparison = compare_results(results, rows)
    folder = store.root.child(f"comparisons/{digest_of([a.key for a in evaluated])}")
    folder.write_json("comparison.json", {"results": results, **comparison})
    write_report(results, folder, comparison=comparison)
    return Comparison(results, comparison, folder)


def bundle(experiment: Experiment, store: Store, folder: Folder) -> None:
    """Write what Serve loads: config, weights, catalogue, semantic IDs, metrics, ancestry."""
    prepared = prepare(experiment, store)
    model, evaluated = final_model(experiment, store), evaluate(experiment, store)
    embeddings, codebooks = prepared.embeddings, prepared.codebooks
    needs = method_of(experiment.method).reads()
    write_bundle(
        folder,
        experiment=dict(experiment.values()),
        method_config=experiment.method.model_dump(mode="json"),
        state=model.folder.read_tensors("model.safetensors"),
        catalog=Catalog.read(prepared.sequences.folder),
        semantic_ids=SemanticIds.read(codebooks.folder) if codebooks else None,
        embeddings=Embeddings.read(embeddings.folder)
        if embeddings and Need.EMBEDDINGS in needs
        else None,
        metrics=evaluated.folder.read_json("result.json")["metrics"],
        ancestry=store.ancestry(evaluated),
    )


def _told(artifact: Artifact) -> Artifact:
    """Log one line about a stage that had to be built, and pass its artifact on."""
    if artifact.reused:
        _LOG.debug("%s reused", artifact.key)
    else:
        _LOG.info("%s built in %.1f s", artifact.key, artifact.manifest.seconds)
    return artifact
