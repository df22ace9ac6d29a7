"""The main job: from raw logs to an honest leaderboard and a served winner, on one machine."""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from itemese.benchmarks.traffic import measure
from itemese.core import cluster
from itemese.core.artifacts import Store
from itemese.core.config import with_values
from itemese.core.errors import DataError
from itemese.core.schema import Catalog, Histories, Split
from itemese.evaluation.compare import leaderboard
from itemese.evaluation.report.write import write_report
from itemese.logs import sources
from itemese.logs.config import LogsConfig
from itemese.logs.fetch import fetch
from itemese.pipeline.compare import compare
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.search.space import load_space
from itemese.search.study import run_study
from itemese.search.winner import Winner
from itemese.serving.deploy import deploy

_LOG = logging.getLogger(__name__)

RECIPES = Path(__file__).with_name("demo_recipes")
SIMULATED = [
    "logs={source: simulated, simulation: {num_users: 4000, num_items: 1000, lengths: {mean: 20}, "
    "mixture: {taste: 0.85, transition: 0.05, popularity: 0.1}}}",
    "training.max_epochs=12",  # of fewer steps than those of MovieLens-1M
]
"""Users with tastes: with more planted transitions, counting them would be all that is needed."""

SIMPLE = ("popularity", "recent_popularity", "item_knn", "transition_graph")
NUM_REQUESTS = 200
NUM_USERS = 50
"""Different users among the requests."""

LAST_SHOWN = 5


@dataclass(frozen=True)
class Answer:
    """What the served winner said.

    Attributes:
        user_id: One real user of the test split.
        history: Titles of the user's newest items, oldest first.
        recommended: ``(title, score, reason)``, best first; the reason in words, or empty.
        http: ``p50_ms``, ``p95_ms``, ``requests`` and ``errors`` of the timed requests.
    """

    user_id: str
    history: list[str]
    recommended: list[tuple[str, float, str]]
    http: dict[str, float]


@dataclass(frozen=True)
class Shown:
    """What the demo prints: table with verdict, the study's choice, an answer, page and bundle."""

    leaderboard: str
    chosen: dict[str, Any]
    answer: Answer
    report: str
    bundle: str


def choose_data(data_folder: str) -> list[str]:
    """Return overrides that select MovieLens-1M, downloaded if need be, else simulated logs."""
    path = str(Path(data_folder) / "movielens_1m")
    try:
        sources.plan(LogsConfig(source="movielens_1m", path=path))
    except DataError:  # it is not there, or not whole
        try:
            path = fetch("movielens_1m", data_folder)
        except DataError as error:
            _LOG.warning("%s", error)
            _LOG.warning("MovieLens-1M could not be downloaded: the demo uses simulated logs.")
            return SIMULATED
    return [f"logs.path={path}"]


def run(storage: str, data_folder: str, *, quick: bool = False) -> Shown:
    """Compare six methods, search, serve the winner and ask it.

    Args:
        storage: Where artifacts go; what is there already is not made again.
        data_folder: Where data sets live.
        quick: Simulated logs and two trials, whatever data there are.
    """
    overrides = SIMULATED if quick else choose_data(data_folder)
    store = Store(storage)
    sasrec = Experiment.from_yaml(RECIPES / "sasrec_demo.yaml", overrides)
    language = Experiment.from_yaml(RECIPES / "copy_lm_demo.yaml", overrides)
    values = sasrec.values()
    simple = [with_values(values, {"name": name, "method": {"name": name}}) for name in SIMPLE]
    compared = compare([*map(Experiment.parse, simple), sasrec, language], store)

    name = f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    space = load_space(RECIPES / "space.yaml", overrides=overrides)
    study = run_study(space, storage=storage, name=name, num_trials=2 if quick else None)
    assert study.winner is not None, "the demo's space must name a seed for its winner"
    winner = _result_of(study.winner, language, store)
    cluster.shut_down()  # a service on its own cluster ends without a line of Ray's
    answer = serve_and_ask(study.winner.bundle, language, store)
    winner["latency_http_ms"] = {"p50": answer.http["p50_ms"], "p95": answer.http["p95_ms"]}
    results = [*compared.results, winner]
    report = write_report(results, store.root.child(f"demos/{name}"))
    return Shown(leaderboard(results), study.winner.values, answer, report, study.winner.bundle)


def _result_of(winner: Winner, recipe: Experiment, store: Store) -> dict[str, Any]:
    """Return the result of the bundled rerun, named for what it is."""
    settings = {**winner.values, "seed": winner.bundled_seed}
    experiment = Experiment.parse(with_values(recipe.values(), settings))
    result: dict[str, Any] = Run(experiment, store).result
    return {**result, "name": "study_winner"}


def serve_and_ask(bundle: str, experiment: Experiment, store: Store) -> Answer:
    """Serve the bundle on a free port, ask for real users, and shut it down.

    Args:
        bundle: What the study wrote.
        experiment: Names the data that the users come from.
        store: Where its artifacts are.
    """
    sequences = Run(experiment, store).sequences.folder
    catalog = Catalog.read(sequences)
    block = Histories.read(sequences, Histories.shard_names(sequences)[:1])
    targets = block.targets(Split.TEST)
    users = range(min(NUM_USERS, len(targets.row)))
    histories = [
        [
            catalog.item_ids[item]
            for item in block.request(
                int(targets.row[user]), int(targets.place[user]), experiment.method.max_history
            ).history
        ]
        for user in users
    ]
    bodies = [{"history": histories[n % len(histories)], "k": 10} for n in range(NUM_REQUESTS)]
    with deploy(bundle, port=0) as service:
        http = measure(service.url, bodies, service.token)
        reply = httpx.post(
            f"{service.url}/v1/recommend",
            headers=service.headers,
            json={**bodies[0], "explain": True},
            timeout=30,
        )
        reply.raise_for_status()
    titles = [catalog.titles[catalog.index_of[item]] for item in histories[0][-LAST_SHOWN:]]
    items = json.loads(reply.text)["items"]
    answered = [(item["title"], item["score"], _reason(item.get("explanation"))) for item in items]
    return Answer(block.user_id[int(targets.row[0])], titles, answered, http)


def _reason(explanation: dict[str, Any] | None) -> str:
    """Return what an item owes to an item of the history, in words; empty where none is known."""
    copied, near = ((explanation or {}).get(part) for part in ("copied", "nearest"))
    if copied and copied["item_id"]:
        return f"{copied['share']:.0%} copied from what follows {copied['title']}"
    if not explanation or not near:
        return ""
    group = "-".join(map(str, explanation["codes"][: near["shared_codes"]]))
    return f"shares group {group} with {near['title']}"
