"""A whole study: plan, Tune with Optuna, resume, the table, and the winner."""

import logging
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from itemese import cluster, pipeline
from itemese.artifacts import Folder, Store
from itemese.config import flat_paths
from itemese.errors import ConfigError, TrainingError
from itemese.experiment import Experiment
from itemese.search.outcome import StudyResult, tell
from itemese.search.planning import Plan, check_effect, plan_resources
from itemese.search.records import Recorder, Records
from itemese.search.space import Space, to_tune
from itemese.search.trial import OBJECTIVE, CountingStore, make_trainable
from itemese.search.winner import Winner, crown

logger = logging.getLogger(__name__)


def run_study(
    space: Space,
    *,
    storage: str,
    name: str,
    num_trials: int | None = None,
    resume: bool = False,
    max_concurrent: int | None = None,
) -> StudyResult:
    """Search a space, then train its winner on fresh seeds and write it as a bundle.

    Everything is under ``<storage>/studies/<name>``; stage outputs are in the storage itself and
    shared by all trials. A failing trial is recorded with its reason and the study goes on. Ctrl-C
    ends the study with what it has so far.

    Args:
        space: Checked against its recipe.
        storage: Folder or URI of the artifacts.
        name: Of the study; a new one, or with `resume` a known one.
        num_trials: Instead of the space's own number.
        resume: Finish a study that was stopped; its finished trials are not repeated.
        max_concurrent: Instead of the space's own number.

    Raises:
        ConfigError: A name that is taken (or, to resume, unknown), another space than before.
        TrainingError: Every trial failed.
    """
    started = time.monotonic()
    store = CountingStore(storage)
    home = _home(store, name)
    total = num_trials or space.config.num_trials
    identity = {"num_trials": total, **space.identity()}
    _check_name(home, identity, resume=resume)
    cluster.connect()
    default = Experiment.parse(space.recipe)
    limit = max_concurrent or space.config.max_concurrent
    plan = plan_resources(space, default, dict(ray.cluster_resources()), limit=limit)
    # Built once here: trials that start side by side would each build it, and Ray Data's tasks
    # would wait for CPUs that the trials hold.
    check_effect(space, pipeline.prepare(default, store))
    home.write_json("space.json", identity)
    records = Records(home.child("records"))
    logger.info(
        "study %s: %d trials, %d side by side; watch: tensorboard --logdir %s",
        name,
        total,
        plan.max_concurrent,
        home.uri,
    )
    with _quiet():
        _tuner(space, plan, records, num_trials=total, resume=resume).fit()

    def result(winner: Winner | None = None) -> StudyResult:
        seconds = round(time.monotonic() - started, 3)
        trials = tuple(records.read())
        over = tuple(t for t in trials if t.ending.status != "interrupted")
        if (
            len(over) >= total
        ):  # what is left began just before a kill, unknown to the resumed study
            trials = over
        return StudyResult(name, home.uri, space.config.metric, trials, total, seconds, winner)

    found = result()
    home.write_json("study.json", found.to_dict())
    if found.best is None and not found.interrupted:
        reason = next((t.ending.error for t in found.trials if t.ending.error), "none reported")
        message = f"`{name}` must have one trial that ends well; got none. The first says: {reason}"
        raise TrainingError(message)
    if found.interrupted or found.best is None or not space.config.seeds:
        tell(found)
        return found
    winner = crown(
        found.best,
        space,
        storage=store.root.uri,  # absolute, for workers in other folders
        folder=home.child("winner"),
        plan=plan,
    )
    found = result(winner)
    home.write_json("study.json", found.to_dict())
    tell(found)
    return found


def _home(store: Store, name: str) -> Folder:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        message = f"`name` must be letters, digits, '.', '_' and '-'; got {name!r}. Rename it."
        raise ConfigError(message)
    return store.root.child("studies").child(name)


def _check_name(home: Folder, identity: dict[str, Any], *, resume: bool) -> None:
    """Refuse to begin a study twice, or to go on with another than the one that began."""
    name = home.uri.rsplit("/", 1)[-1]
    known = home.exists("space.json")
    if known and not resume:
        message = f"`name` must be new; got {name!r}, which exists. Resume it or choose another."
        raise ConfigError(message)
    if not known and resume:
        message = (
            f"`name` must be a study to resume; got {name!r}, which has none at {home.uri}. "
            "Start it without resume."
        )
        raise ConfigError(message)
    if not known:
        return
    before, now = flat_paths(home.read_json("space.json")), flat_paths(identity)
    changed = [
        f"{path}: {before.get(path)!r} -> {now.get(path)!r}"
        for path in sorted({*before, *now})
        if _plain(before.get(path)) != _plain(now.get(path))
    ]
    if changed:
        message = (
            f"`name` must be resumed with the space and recipe it began with; got changes in "
            f"{name!r}: {'; '.join(changed)}. Undo them or start a new study."
        )
        raise ConfigError(message)


def _plain(value: Any) -> Any:
    """Return lists for tuples, as JSON gives them back."""
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _tuner(
    space: Space, plan: Plan, records: Records, *, num_trials: int, resume: bool
) -> tune.Tuner:
    home = records.folder.uri.rsplit("/", 1)[0]
    parent, name = home.rsplit("/", 1)
    storage = parent.rsplit("/", 1)[0]
    trial = make_trainable(space, storage=storage, records=records)
    trainable = tune.with_resources(trial, plan.resources)
    if resume and tune.Tuner.can_restore(home):
        return tune.Tuner.restore(home, trainable=trainable, resume_unfinished=True)
    config = space.config
    asha = config.asha
    scheduler = asha and ASHAScheduler(
        grace_period=asha.grace_period,
        max_t=asha.max_validations,
        reduction_factor=asha.reduction_factor,
    )
    sampler = OptunaSearch(seed=config.seed, points_to_evaluate=[space.defaults, *space.enqueued])
    return tune.Tuner(
        trainable,
        param_space=to_tune(config),
        tune_config=tune.TuneConfig(
            metric=OBJECTIVE,
            mode=config.mode,
            num_samples=num_trials,
            search_alg=sampler,
            scheduler=scheduler,
            max_concurrent_trials=plan.max_concurrent,
            # A new process costs seconds, small trials less than that; Ray Train wants its own.
            reuse_actors="CPU" in plan.resources,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=parent,
            verbose=0,
            callbacks=[Recorder(records, num_trials=num_trials, metric=config.metric)],
        ),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the lines of Tune, Optuna and TensorBoard away: each trial has its one line already."""
    levels = {"ray.tune": logging.CRITICAL, "tensorboardX": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in levels}
    verbosity, output = optuna.logging.get_verbosity(), os.environ.get("RAY_AIR_NEW_OUTPUT")
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints tables even at verbose=0
    try:
        with warnings.catch_warnings():
            # A trial that runs again after a resume reports steps that the sampler knows.
            warnings.filterwarnings("ignore", module="optuna")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        optuna.logging.set_verbosity(verbosity)
        if output is None:
            os.environ.pop("RAY_AIR_NEW_OUTPUT", None)
        else:
            os.environ["RAY_AIR_NEW_OUTPUT"] = output
