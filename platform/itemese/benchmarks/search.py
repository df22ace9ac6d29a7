"""What a study saves and costs, whether its sampler learns, and whether a kill harms it.

Everything is small, on simulated logs: the semantic-ID language model over RQ-VAE codes whose size
and commitment vary with the learning rate, and a SASRec of 8 numbers a state where only the
machinery counts. Times are wall clock; other work on the machine counts in them.
"""

import logging
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from itemese.benchmarks.rows import Row, figure
from itemese.core import cluster
from itemese.core.artifacts import Folder, Store
from itemese.search.config import SearchConfig
from itemese.search.outcome import StudyResult, ranked
from itemese.search.records import Ending, Records, Trial
from itemese.search.sampling import open_study, propose
from itemese.search.sharing import SharedStore
from itemese.search.space import Space, Values, check_space
from itemese.search.study import run_study
from itemese.search.trial import run_trial

_LOG = logging.getLogger(__name__)

REGRET_TRIALS = 30
LIFE = 16.0
"""Seconds from a driver's start within which every other kill comes; about half are its start."""

PATIENCE = 600.0
"""Seconds to wait for a driver's first trial; a busy machine needs a minute to start Ray."""

_DRIVE = "import sys; from itemese.benchmarks.search import drive; drive(*sys.argv[1:])"


def sharing_space(num_trials: int) -> Space:
    """Return codebook size x commitment x learning rate of a small semantic-ID language model."""
    recipe = {
        "name": "sharing",
        "logs": {"source": "simulated", "simulation": {"num_users": 400, "num_items": 600}},
        "embeddings": {"model": "hashing", "collaborative": {"dim": 32}},
        "codebooks": {
            "kind": "rq_vae",
            "num_codebooks": 2,
            "codebook_size": 32,
            "rq_vae": {"steps": 100, "hidden_dim": 64},
            "gate": "off",
        },
        "method": {
            "name": "semantic_id_lm",
            "max_history": 10,
            "beam_width": 10,
            "backbone": {"dim": 32, "num_layers": 1, "num_heads": 2, "hidden_dim": 64},
        },
        "training": {"max_epochs": 1, "batch_size": 64, "validation_users": 100},
        "evaluation": {"bootstrap_samples": 100},
    }
    rate = {"kind": "uniform", "low": 0.0003, "high": 0.03, "log": True}
    parameters = {
        "codebooks.codebook_size": {"kind": "choice", "choices": [16, 32, 64]},
        "codebooks.rq_vae.commitment_weight": {"kind": "choice", "choices": [0.1, 0.25, 1.0]},
        "training.learning_rate": rate,
    }
    return _space(recipe, parameters, num_trials)


def small_space(num_trials: int) -> Space:
    """Return the learning rate of a SASRec that trains in about a second."""
    recipe = {
        "name": "small",
        "logs": {"source": "simulated", "simulation": {"num_users": 100, "num_items": 400}},
        "method": {"name": "sasrec", "dim": 8, "num_layers": 1, "max_history": 10},
        "training": {"max_epochs": 2, "batch_size": 32, "learning_rate": 0.01},
        "evaluation": {"bootstrap_samples": 100},
    }
    rate = {"kind": "uniform", "low": 0.001, "high": 0.1, "log": True}
    return _space(recipe, {"training.learning_rate": rate}, num_trials, seeds=[1])


def _space(
    recipe: dict[str, Any],
    parameters: dict[str, Any],
    num_trials: int,
    *,
    seeds: Sequence[int] = (),
) -> Space:
    study = {"recipe": "-", "parameters": parameters, "num_trials": num_trials, "seeds": seeds}
    return check_space(SearchConfig.parse(study | {"max_concurrent": 1}), recipe)


def benchmark_sharing(storage: str, num_trials: int) -> list[Row]:
    """Time a study, a plain loop over its trials, and as many runs that share nothing.

    The study's time is that of all of it: preparation, trials one at a time like the others, the
    report. One thread computes in each, as Ray gives to a trial; the cluster runs already.
    """
    space = sharing_space(num_trials)
    cluster.connect()
    torch.set_num_threads(1)
    place = Path(storage)
    prepared, study_seconds = _timed(
        lambda: run_study(space, storage=str(place / "study"), name="sharing")
    )
    values = [trial.values for trial in prepared.trials]
    looped = SharedStore(place / "loop")
    _, loop_seconds = _timed(lambda: [_one(space, v, looped) for v in values])
    apart: list[float] = []
    _, apart_seconds = _timed(
        lambda: apart.extend(
            _one(space, v, SharedStore(place / f"apart{n}")) for n, v in enumerate(values)
        )
    )
    alone = [Trial(n, v, Ending("completed", apart[n])) for n, v in enumerate(values)]
    same = ranked(alone, space.config)[0].number == _winner(prepared)
    ratio = study_seconds / apart_seconds
    overhead = (study_seconds - loop_seconds) / num_trials
    name = f"search/sharing/{num_trials}-trials"
    return [
        figure(f"{name}/study", study_seconds, "s"),
        figure(f"{name}/independent-runs", apart_seconds, "s"),
        figure(f"{name}/share-of-time", 100 * ratio, "%", most=35.0),
        figure(f"{name}/same-winner", float(same), "", least=1.0),
        figure(f"{name}/stage-runs-saved", prepared.saved.stages, "stages"),
        figure(f"{name}/plain-loop-that-shares", loop_seconds, "s"),
        figure("search/overhead-per-trial", overhead, "s", below=3.0),
    ]


def benchmark_regret(
    objective: Callable[[Mapping[str, Any]], float],
    optimum: float,
    parameters: dict[str, Any],
    defaults: Values,
    *,
    seeds: int,
) -> list[Row]:
    """Compare TPE with random draws where the optimum is known; each seed is one study.

    Args:
        objective: Of one trial's values, up.
        optimum: The best that it can reach.
        parameters: As in a space file.
        defaults: Trial 0.
        seeds: Studies a sampler.
    """
    rows, medians = [], {}
    for sampler in ("tpe", "random"):
        regrets = []
        for seed in range(seeds):
            study = {"recipe": "-", "parameters": parameters, "sampler": sampler, "seed": seed}
            space = Space(SearchConfig.parse(study), {}, defaults, ())
            regrets.append(optimum - _searched(space, objective))
        medians[sampler] = median(regrets)
        name = f"search/regret/{sampler}/{REGRET_TRIALS}-trials-{seeds}-seeds"
        rows.append(figure(f"{name}/median", medians[sampler], "nats"))
        rows.append(figure(f"{name}/worst", max(regrets), "nats"))
    ratio = medians["tpe"] / medians["random"] if medians["random"] else 1.0
    rows.append(figure("search/regret/tpe-to-random", ratio, "x", below=1.0))
    return rows


def _searched(space: Space, objective: Callable[[Mapping[str, Any]], float]) -> float:
    """Return the best of one study whose trials are calls of a function."""
    study = open_study(space, [], name="regret", home=Folder.at("."), url=None)
    best = -float("inf")
    for number in range(REGRET_TRIALS):
        trial, values = propose(study, space, number)
        value = objective(values)
        study.tell(trial, value)
        best = max(best, value)
    return best


def benchmark_kills(storage: str, *, kills: int, num_trials: int, seed: int = 0) -> list[Row]:
    """Kill the driver of one study again and again, and compare it with one left alone.

    Every other kill comes at any moment of the driver's life, mostly while it starts; the others
    0 to 1.5 s after its first trial has begun: while a trial is proposed, prepared, trained, or
    noted. A study that is over before its last kill leaves kills out. Trials run one at a time:
    the study left alone then has the same history.

    Args:
        storage: Scratch folder.
        kills: How often.
        num_trials: Of the study.
        seed: Of the moments.
    """
    chance = random.Random(seed)
    done = 0
    for life in range(kills):
        process = _driver(storage, "killed", num_trials, resume=life > 0)
        if life % 2 == 0:
            if not _working(process, storage, since=time.time()):
                break
            time.sleep(chance.uniform(0, 1.5))
        else:
            time.sleep(chance.uniform(0, LIFE))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        done += 1
        _LOG.info("driver killed %d times, %d trials over", done, _over(storage))
    for name in ("killed", "whole"):
        status = _driver(storage, name, num_trials, resume=name == "killed").wait()
        _LOG.info("the driver of the %s study ended with status %d", name, status)
    killed, whole = _table(storage, "killed"), _table(storage, "whole")
    numbers = [trial.number for trial in killed]
    repeated = Records(Folder.at(_records(storage, "killed"))).repeated()
    exact = numbers == list(range(num_trials))
    same = [(t.values, t.ending.objective) for t in killed] == [
        (t.values, t.ending.objective) for t in whole
    ]
    crowned = {name: _crowned(storage, name) for name in ("killed", "whole")}
    name = f"search/kills/{num_trials}-trials"
    return [
        figure(f"{name}/kills", done, "kills", least=float(kills)),
        figure(f"{name}/exact-count", float(exact), "", least=1.0),
        figure(f"{name}/no-trial-twice", float(not repeated), "", least=1.0),
        figure(f"{name}/same-trials-as-uninterrupted", float(same), "", least=1.0),
        figure(f"{name}/same-winner", float(crowned["killed"] == crowned["whole"]), "", least=1.0),
    ]


def drive(storage: str, name: str, num_trials: str, how: str) -> None:
    """Run or resume one small study; the process that is killed."""
    logging.disable(logging.INFO)
    space = small_space(int(num_trials))
    run_study(space, storage=f"{storage}/{name}", name="s", resume=how == "resume")


def _driver(storage: str, name: str, num_trials: int, *, resume: bool) -> subprocess.Popen[bytes]:
    known = (Path(storage) / name / "studies" / "s" / "space.json").exists()
    how = "resume" if resume and known else "run"
    command = [sys.executable, "-c", _DRIVE, storage, name, str(num_trials), how]
    return subprocess.Popen(command)


def _records(storage: str, name: str) -> Path:
    return Path(storage) / name / "studies" / "s" / "records"


def _working(process: subprocess.Popen[bytes], storage: str, *, since: float) -> bool:
    """Wait until a driver's trials write records; return whether it still runs."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        files = list(_records(storage, "killed").glob("*.json"))
        if any(file.stat().st_mtime > since for file in files):
            return True
        time.sleep(0.02)
    return False


def _over(storage: str) -> int:
    return sum(t.ending.status == "completed" for t in _table(storage, "killed"))


def _table(storage: str, name: str) -> list[Trial]:
    return Records(Folder.at(_records(storage, name))).read()


def _crowned(storage: str, name: str) -> tuple[int, float]:
    """Return the winner of a study and its mean on fresh seeds."""
    winner = Folder.at(_records(storage, name).parent).read_json("study.json")["winner"]
    return winner["trial"], winner["validation"]


def _one(space: Space, values: Values, store: Store) -> float:
    found = run_trial(
        space.values(values), metric=space.config.metric, store=store, report=lambda metrics: None
    )
    return found.metrics[space.config.metric]


def _winner(found: StudyResult) -> int:
    assert found.best is not None, "every trial failed"
    return found.best.number


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.monotonic()
    done = work()
    return done, time.monotonic() - started


def run(
    storage: str,
    objective: Callable[[Mapping[str, Any]], float],
    optimum: float,
    parameters: dict[str, Any],
    defaults: Values,
    *,
    repeats: int,
) -> list[Row]:
    """Run all; `repeats` of 5 gives 20 trials, 5 seeds, and 10 kills in a study of 40.

    Args:
        storage: Scratch folder.
        objective: See `benchmark_regret`, as `optimum`, `parameters` and `defaults`.
        optimum: As there.
        parameters: As there.
        defaults: As there.
        repeats: Scales everything.
    """
    place = Path(storage) / f"search-{int(time.time())}"
    rows = benchmark_regret(objective, optimum, parameters, defaults, seeds=repeats)
    try:
        rows += benchmark_sharing(str(place / "sharing"), 4 * repeats)
    finally:
        cluster.shut_down()  # the drivers to be killed start their own
    rows += benchmark_kills(str(place / "kills"), kills=2 * repeats, num_trials=8 * repeats)
    return rows
