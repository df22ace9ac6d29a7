"""A whole study: plan, Tune with Optuna, resume, the table, and the winner."""

import logging
import os
import re
import shlex
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray import tune

from itemese.core import cluster
from itemese.core.artifacts import Folder, Store
from itemese.core.config import flat_paths
from itemese.core.errors import ConfigError, TrainingError
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.search.messages import NUMBER, OBJECTIVE
from itemese.search.outcome import Saved, StudyResult, finalists, log_outcome, ranked
from itemese.search.planning import (
    Plan,
    build_before_training,
    check_effect,
    plan_resources,
)
from itemese.search.records import Records, Trial
from itemese.search.report import write_report
from itemese.search.sampling import Recorder, StudySearch, database_url, open_study, shown
from itemese.search.sharing import SharedStore, locks_of
from itemese.search.space import Space
from itemese.search.stopping import StagedAsha
from itemese.search.trial import make_trainable
from itemese.search.winner import Winner, crown

logger = logging.getLogger(__name__)

SYNC_SECONDS = 10
"""Between copies of TensorBoard's files to the study's folder."""


def run_study(
    space: Space,
    *,
    storage: str,
    name: str,
    num_trials: int | None = None,
    resume: bool = False,
    max_concurrent: int | None = None,
    database: str | None = None,
) -> StudyResult:
    """Search a space, then train its finalists on fresh seeds and write the winner as a bundle.

    Everything is under ``<storage>/studies/<name>``; stage outputs are in the storage itself and
    shared by all trials. A failing trial is recorded with its reason and the study goes on. Ctrl-C
    ends the study with what it has so far.

    Args:
        space: Checked against its recipe.
        storage: Folder or URI of the artifacts.
        name: Of the study; a new one, or with `resume` a known one.
        num_trials: Instead of the space's own number; a resumed study may be given more.
        resume: Finish a study that was stopped; its finished trials are not repeated.
        max_concurrent: Instead of the space's own number.
        database: SQLAlchemy's URL of a database for Optuna's view of the study; SQLite beside the
            study by default, memory where the storage is not local.

    Raises:
        ConfigError: A name that is taken (or, to resume, unknown), another space than before, a
            study that another driver is running, a database that cannot be used.
        ArtifactError: The storage cannot be written.
        TrainingError: Every trial failed.
    """
    started = time.monotonic()
    store = SharedStore(storage)
    home = _home(store, name)
    _check_name(home, space.identity(), resume=resume)
    with only_driver(home):
        _check_name(
            home, space.identity(), resume=resume
        )  # again, now that this driver has the lock
        return _Study(space, store, home, name, started).run(
            num_trials, max_concurrent, database or database_url(home)
        )


class _Study:
    """One call of `run_study`, alone on its study."""

    def __init__(
        self, space: Space, store: SharedStore, home: Folder, name: str, started: float
    ) -> None:
        self.space = space
        self.store = store
        self.home = home
        self.name = name
        self.started = started
        self.records = Records(home.child("records"))
        self.total = 0
        self.before = home.read_json("study.json") if home.exists("study.json") else {}

    def run(
        self, num_trials: int | None, max_concurrent: int | None, url: str | None
    ) -> StudyResult:
        """Run what is missing, then the finalists."""
        space, config = self.space, self.space.config
        begun = self.records.read()
        self.total = num_trials or self._remembered() or config.num_trials
        if self.total < len(begun):
            message = (
                f"`num_trials` must be >= the {len(begun)} trials that have begun; got "
                f"{self.total}. Raise it."
            )
            raise ConfigError(message)
        cluster.connect()
        default = Experiment.parse(space.recipe)
        limit = max_concurrent or config.max_concurrent
        plan = plan_resources(space, default, dict(ray.cluster_resources()), limit=limit)
        study = open_study(space, begun, name=self.name, home=self.home, url=url)
        # Built once here: trials that start side by side would wait for the first of them, and
        # Ray Data's tasks for CPUs that the trials hold.
        recipe = Run(default, self.store)
        check_effect(space, recipe)
        self._check_data(recipe)
        build_before_training(recipe)
        asked = {"num_trials": self.total, "written": config.num_trials}
        self.home.write_json("space.json", {**asked, **space.identity()})
        logger.info(
            "study %s: %d trials, %d side by side; watch it by",
            self.name,
            self.total,
            plan.max_concurrent,
        )
        for command in watching(self.home, url):
            logger.info("    %s", command)
        with _quiet():
            missing = self.total - sum(t.ending.status != "interrupted" for t in begun)
            if missing:
                search = StudySearch(space, self.records, study)
                recorder = Recorder(search, num_trials=self.total, metric=config.metric)
                try:
                    with cluster.signals_kept():
                        _tuner(space, plan, recorder, search, missing=missing).fit()
                except tune.TuneError as error:
                    # Tune puts what stopped it into its own error as a traceback.
                    raise search.fault or recorder.fault or error from None
                if search.fault:
                    raise search.fault
        found = self._found()
        self._write(found)
        if found.best is None and not found.interrupted:
            reasons = (t.ending.error for t in found.trials)
            reason = next(filter(None, reasons), "none reported")
            message = (
                f"`{self.name}` must have one trial that ends well; got none. The first says: "
                f"{reason}"
            )
            raise TrainingError(message)
        if not found.interrupted and config.seeds:
            found = self._crowned(found, plan)
        log_outcome(found)
        return found

    def _crowned(self, found: StudyResult, plan: Plan) -> StudyResult:
        """Return the study with its winner; without one after Ctrl-C, for a resume to find."""
        config = self.space.config

        def rank(trials: Sequence[Trial]) -> list[Trial]:
            return ranked(trials, config)

        try:
            winner = crown(
                finalists(found.trials, config),
                self.space,
                rank=rank,
                storage=self.store.root.uri,  # absolute, for workers in other folders
                folder=self.home.child("winner"),
                plan=plan,
            )
        except KeyboardInterrupt:
            logger.info("stopped before the winner was known; --resume goes on from here")
            return found
        spent = (self.before.get("winner") or {}).get("seconds", 0.0)
        winner = replace(winner, seconds=round(winner.seconds + spent, 3))
        crowned = self._found(replace(winner, tested=self._tested(winner)))
        self._write(crowned)
        return crowned

    def _tested(self, winner: Winner) -> int:
        """Return how many winners of this study have met the test split, the new one included."""
        met = self.home.read_json("tested.json") if self.home.exists("tested.json") else []
        if winner.trial not in met:
            met = [*met, winner.trial]
            self.home.write_json("tested.json", met)
        return len(met)

    def _remembered(self) -> int | None:
        """Return how many trials the study was last asked for, unless its file says anew."""
        if not self.home.exists("space.json"):
            return None
        asked = self.home.read_json("space.json")
        now = self.space.config.num_trials
        return int(asked["num_trials"]) if asked.get("written", now) == now else None

    def _check_data(self, recipe: Run) -> None:
        """Refuse to go on where the recipe's own stages came to something else than before."""
        keys = {stage: artifact.key for stage, artifact in recipe.ancestors.items()}
        before = self.home.read_json("data.json") if self.home.exists("data.json") else keys
        changed = [stage for stage in keys if keys[stage] != before.get(stage)]
        if changed:
            message = (
                f"`name` must be resumed with the data and code it began with; got other "
                f"{', '.join(changed)} in {self.name!r}. Bring them back or start a new study."
            )
            raise ConfigError(message)
        self.home.write_json("data.json", keys)

    def _found(self, winner: Winner | None = None) -> StudyResult:
        trials = tuple(self.records.read())
        return StudyResult(
            name=self.name,
            uri=self.home.uri,
            config=self.space.config,
            trials=trials,
            num_trials=self.total,
            seconds=round(time.monotonic() - self.started + self._spent(), 3),
            saved=_saved(trials, self.store),
            winner=winner,
        )

    def _spent(self) -> float:
        """Return the seconds of earlier calls."""
        return float(self.before.get("cost", {}).get("wall_seconds", 0.0))

    def _write(self, found: StudyResult) -> None:
        self.home.write_json("study.json", found.to_dict())
        write_report(found, self.space, self.store)


def watching(home: Folder, url: str | None) -> list[str]:
    """Return the commands that show a study while it runs."""
    commands = [f"tensorboard --logdir {shlex.quote(home.uri)}"]
    if url:
        commands.append(f"optuna-dashboard {shlex.quote(shown(url))}")
    return commands


def _saved(trials: Sequence[Trial], store: Store) -> Saved:
    """Count the stage runs that trials found done; what none of them built was built once."""
    built = {key for trial in trials for key in trial.ending.built}
    reuses = Counter(key for trial in trials for key in trial.ending.reused)
    spared = {key: count - (key not in built) for key, count in reuses.items()}
    seconds = 0.0
    for key, count in spared.items():
        artifact = store.find(key)
        seconds += count * artifact.manifest.seconds if artifact else 0.0
    return Saved(sum(spared.values()), round(seconds, 3))


@contextmanager
def only_driver(home: Folder) -> Iterator[None]:
    """Let one driver at a time work on a study; the system lets go when it dies.

    Raises:
        ConfigError: Another one is at work.
        ArtifactError: The folder cannot be written.
    """
    home.create()
    with locks_of(home) as lock:
        if not lock("driver.lock"):
            raise ConfigError(_BUSY.format(home.uri))
        yield


_BUSY = (
    "`name` must be a study that no other driver is running; got one that is, at {}. Wait for it, "
    "stop it, or choose another --name."
)


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
    for asked in ("num_trials", "written"):  # more of the same may be asked for
        before.pop(asked, None)
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
    space: Space, plan: Plan, recorder: Recorder, search: StudySearch, *, missing: int
) -> tune.Tuner:
    """Return Tune ready to run the missing trials; what it keeps of earlier ones is not read."""
    records = recorder.records
    home = records.folder.uri.rsplit("/", 1)[0]
    parent, name = home.rsplit("/", 1)
    storage = parent.rsplit("/", 1)[0]
    trial = make_trainable(space, storage=storage, records=records)
    config = space.config
    scheduler = StagedAsha(config.asha, records.read()) if config.asha else None
    return tune.Tuner(
        tune.with_resources(trial, plan.resources),
        tune_config=tune.TuneConfig(
            metric=OBJECTIVE,
            mode=config.mode,
            num_samples=missing,
            search_alg=search,
            scheduler=scheduler,
            max_concurrent_trials=plan.max_concurrent,
            # A new process costs seconds, small trials less than that; Ray Train wants its own.
            reuse_actors="CPU" in plan.resources,
            trial_dirname_creator=lambda trial: f"trial-{trial.config[NUMBER]:05d}",
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=parent,
            verbose=0,
            # TensorBoard's files reach the study's folder by a copy, five minutes apart by default.
            sync_config=tune.SyncConfig(sync_period=SYNC_SECONDS),
            callbacks=[recorder],
        ),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the lines of Tune and TensorBoard away: each trial has its one line already."""
    levels = {"ray.tune": logging.CRITICAL, "tensorboardX": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in levels}
    output = os.environ.get("RAY_AIR_NEW_OUTPUT")
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints tables even at verbose=0
    try:
        with warnings.catch_warnings():
            # A trial that runs again after a resume reports steps that the sampler knows.
            warnings.filterwarnings("ignore", module="optuna")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        if output is None:
            os.environ.pop("RAY_AIR_NEW_OUTPUT", None)
        else:
            os.environ["RAY_AIR_NEW_OUTPUT"] = output
