"""Who proposes the next values: Optuna's samplers behind Tune, with the records as their memory.

The study in Optuna's database is a view for people who watch and what the sampler reads; it is made
anew from the records whenever a study begins or goes on. Each proposal has a generator of its own
from (seed, number), so the same history leads to the same proposal before and after a resume.
"""

import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pyarrow.fs as pafs
import sqlalchemy
from optuna.trial import TrialState
from ray.tune import Callback
from ray.tune.search.optuna import OptunaSearch

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, ConfigError
from itemese.core.randomness import derive_seed
from itemese.search.config import SearchConfig
from itemese.search.messages import NUMBER, OBJECTIVE, STAGE
from itemese.search.records import Ending, Records, Trial, one_sentence, short
from itemese.search.space import Space, Values, draw

logger = logging.getLogger(__name__)

POPULATION = 10
"""Of the genetic sampler, whose own default of 50 is more than most studies' trials."""

_OWNER = "itemese:study"
_STATES = {
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "interrupted": TrialState.RUNNING,
}
_FAULTS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)
_CANNOT_OPEN = (*_FAULTS, OSError, ImportError, RuntimeError)
"""With the lack of a database's driver, and tables of another version of Optuna."""


def make_sampler(config: SearchConfig, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that proposes trial `number`, with randomness of its own."""
    seed = derive_seed(config.seed, f"search/{number}") % 2**32
    conditional = any(parameter.when for parameter in config.parameters.values())
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if config.sampler == "tpe":
            # Groups keep what depends on each other together where not all trials have all values.
            return samplers.TPESampler(multivariate=True, group=conditional, seed=seed)
        if config.sampler == "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if config.sampler == "nsga2":
            return samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
        if config.sampler == "quasi_random":
            # One sequence for the whole study: its seed must not change with the number.
            scramble = derive_seed(config.seed, "search") % 2**32
            return samplers.QMCSampler(
                scramble=True,
                seed=scramble,
                # Until a trial has completed; with the sequence's seed all of them would be one.
                independent_sampler=samplers.RandomSampler(seed=seed),
                warn_independent_sampling=False,
            )
        return samplers.RandomSampler(seed=seed)


def database_url(home: Folder) -> str | None:
    """Return the SQLite database beside a study; None where its filesystem is not local."""
    filesystem, path = home.filesystem()
    local = isinstance(filesystem, pafs.LocalFileSystem)
    return f"sqlite:///{path}/optuna.db" if local else None


def shown(url: str | None) -> str:
    """Return a database's URL without its password; text that is no URL as it is."""
    try:
        return sqlalchemy.make_url(url or "").render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return str(url)


def open_study(
    space: Space, trials: list[Trial], *, name: str, home: Folder, url: str | None
) -> optuna.Study:
    """Return Optuna's study with the recorded trials in it, whatever was there of it before.

    Args:
        space: What varies.
        trials: By number; one that is interrupted becomes a running one.
        name: Of the study in the database.
        home: The study's folder; another one's study of the same name is refused.
        url: Of the database; None keeps the study in this process's memory.

    Raises:
        ConfigError: The database cannot be opened or written, or holds another study's name.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # each trial has a line of ours already
    try:
        study = _fresh_study(space, name=name, home=home, url=url)
        for trial in trials:
            _add(study, space.config, trial)
    except _CANNOT_OPEN as error:
        message = (
            f"`database` must be a database that can be opened and written; got {shown(url)!r} "
            f"({one_sentence(getattr(error, '__cause__', None) or error)}). Give another by "
            "--database; the records of the trials are safe."
        )
        raise ConfigError(message) from None
    return study


def _fresh_study(space: Space, *, name: str, home: Folder, url: str | None) -> optuna.Study:
    storage = _storage(url, ours=url is not None and url == database_url(home))
    if name in optuna.get_all_study_names(storage):
        owner = optuna.load_study(study_name=name, storage=storage).user_attrs.get(_OWNER)
        if owner != home.uri:
            message = (
                f"`name` must be free in the database; got {name!r}, which is a study at "
                f"{owner!r}. Choose another --name or another --database."
            )
            raise ConfigError(message)
        optuna.delete_study(study_name=name, storage=storage)
    directions = ["maximize", *("minimize" for _ in space.config.minimise)]
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=make_sampler(space.config, 0),
        pruner=optuna.pruners.NopPruner(),
        directions=directions,
    )
    study.set_user_attr(_OWNER, home.uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([space.config.metric, *space.config.minimise])
    return study


def _storage(url: str | None, *, ours: bool) -> optuna.storages.BaseStorage:
    """Open a database; one of ours that is damaged is made anew, since it is only a view."""
    if url is None:
        return optuna.storages.InMemoryStorage()
    settings: dict[str, Any] = {"connect_args": {"timeout": 60}} if "sqlite" in url else {}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=settings)
    except _FAULTS:
        file = Path(url.removeprefix("sqlite:///"))
        if not ours or not file.is_file():
            raise
        file.unlink()
        return optuna.storages.RDBStorage(url, engine_kwargs=settings)


def _add(study: optuna.Study, config: SearchConfig, trial: Trial) -> None:
    """Put one recorded trial into the study."""
    fixed = optuna.trial.FixedTrial(trial.values)
    draw(config, fixed)
    ending = trial.ending
    state = _STATES[ending.status]
    done = state == TrialState.COMPLETE
    frozen = optuna.trial.create_trial(
        state=TrialState.COMPLETE if done else TrialState.FAIL,
        values=values_of(config, ending) if done else None,
        params=trial.values,
        distributions=fixed.distributions,
        system_attrs=trial.hints.get("trial", {}),
        intermediate_values={} if config.minimise else dict(enumerate(ending.bests, start=1)),
    )
    frozen.state = state
    if state == TrialState.RUNNING:
        frozen.datetime_complete = None
        frozen.intermediate_values = {}
    elif state == TrialState.PRUNED:
        frozen.values = [ending.objective] if ending.objective is not None else None
    study._storage.create_new_trial(study._study_id, template_trial=frozen)
    for key, value in trial.hints.get("study", {}).items():
        study._storage.set_study_system_attr(study._study_id, key, value)


def values_of(config: SearchConfig, ending: Ending) -> list[float]:
    """Return a completed trial's objectives in the order of the study's directions."""
    assert ending.objective is not None
    return [ending.objective, *(ending.costs[name] for name in config.minimise)]


def propose(study: optuna.Study, space: Space, number: int) -> tuple[optuna.Trial, Values]:
    """Ask for trial `number`, the next one, and return it with its values.

    The first are the recipe as it is and the points that the space names.
    """
    points = [space.defaults, *space.enqueued]
    study.sampler = make_sampler(space.config, number)
    if number < len(points):
        study.enqueue_trial(points[number])
    trial = study.ask()
    assert trial.number == number, "another process added trials to the study"
    return trial, draw(space.config, trial)


class StudySearch(OptunaSearch):  # type: ignore[misc]
    """OptunaSearch whose memory is the records: it numbers trials and notes each before it runs.

    Attributes:
        fault: What the database or the records could not take; Tune itself would only show a
            traceback.
    """

    def __init__(self, space: Space, records: Records, study: optuna.Study) -> None:
        self.space = space
        self.config = space.config
        self.records = records
        begun = records.read()
        self.again = [t.number for t in begun if t.ending.status == "interrupted"]
        self.count = len(begun)
        self.seen: dict[str, list[dict[str, Any]]] = {}
        self.opened = study
        self.fault: ArtifactError | None = None
        super().__init__(partial(draw, space.config), metric=OBJECTIVE, mode=space.config.mode)

    def _setup_study(self, mode: str | list[str]) -> None:
        self._ot_study = self.opened

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the values of the next trial: one that was interrupted, else a new one.

        Raises:
            ArtifactError: Records or database cannot be written.
        """
        if self.again:
            number = self.again.pop(0)
            asked = self._ot_study.get_trials(deepcopy=False)[number]
            self._ot_trials[trial_id] = optuna.trial.Trial(self._ot_study, asked._trial_id)
            return {NUMBER: number, **draw(self.config, self._ot_trials[trial_id])}
        with self._writable():
            trial, values = propose(self._ot_study, self.space, self.count)
            self.count += 1
            self._ot_trials[trial_id] = trial
            frozen = self._ot_study._storage.get_trial(trial._trial_id)
            shared = self._ot_study._storage.get_study_system_attrs(self._ot_study._study_id)
        hints = {
            "trial": frozen.system_attrs,
            # What the genetic sampler keeps there names trials by the database's own ids.
            "study": {k: v for k, v in shared.items() if k.startswith("qmc:")},
        }
        with self._writable():
            self.records.begin(trial.number, values, json.loads(json.dumps(hints)))
        return {NUMBER: trial.number, **values}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Show one validation to people who watch the study."""
        rows = self.seen.setdefault(trial_id, [])
        rows.append(result)
        if not self.config.minimise:
            with self._writable():
                self._ot_trials[trial_id].report(float(result[OBJECTIVE]), len(rows))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Report a trial's end to the sampler; note an early stop if it did not end itself."""
        if trial_id not in self._ot_trials:
            return
        trial = self._ot_trials[trial_id]
        ending = self.records.ending(trial.number)
        with self._writable():
            if ending.status == "completed":  # also of one that died before Tune got its end
                self._ot_study.tell(trial, values_of(self.config, ending))
            elif error:
                self._ot_study.tell(trial, state=TrialState.FAIL)
            elif result:
                self.on_trial_result(trial_id, result)  # the one that decided comes only here
                rows = self.seen[trial_id]
                stopped = Ending(
                    "stopped",
                    float(result[OBJECTIVE]),
                    seconds=float(result.get("time_total_s", 0.0)),
                    curve=tuple(float(row[self.config.metric]) for row in rows),
                    stages=tuple(str(row[STAGE]) for row in rows),
                )
                self.records.stop(trial.number, stopped)
                self._ot_study.tell(trial, state=TrialState.PRUNED)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """Turn a database's error into one sentence, and keep it; what is recorded stays."""
        try:
            yield
        except _FAULTS as error:
            message = (
                f"`database` must stay writable while a study runs; got "
                f"{one_sentence(error.__cause__ or error)}. Fix it and resume: the records of the "
                "trials are safe."
            )
            self.fault = ArtifactError(message)
            raise self.fault from None
        except ArtifactError as error:
            self.fault = error
            raise

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file, as Tune wants one: the records are what is kept."""
        Path(checkpoint_path).touch()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the study behind: Tune pickles its searcher, which is never read."""
        return {}


class Recorder(Callback):  # type: ignore[misc]
    """Notes the reason of failures, and logs one line a trial.

    Attributes:
        fault: Why the storage failed a trial; the next one would fare no better, and it is the
            study that stops, not the trial that failed.
    """

    def __init__(self, search: StudySearch, *, num_trials: int, metric: str) -> None:
        self.search = search
        self.records = search.records
        self.num_trials = num_trials
        self.metric = metric
        self.began: dict[str, float] = {}
        self.fault: ArtifactError | None = None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Start the clock, for a trial that dies before it notes anything."""
        self.began[trial.trial_id] = time.monotonic()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Log the trial."""
        self._log(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial failed: a driver that dies ends its trials too, and notes nothing."""
        if self.search.fault:  # the searcher's, which Tune takes for the trial's
            raise self.search.fault
        noted = self.records.ending(trial.config[NUMBER])
        error = trial.get_pickled_error() or trial.get_error()
        cause = getattr(error, "cause", error)
        if isinstance(cause, ArtifactError):
            self.fault = cause
            raise cause
        reason = noted.error or f"The worker died: {one_sentence(error)}"
        began = self.began.get(trial.trial_id, time.monotonic())
        seconds = noted.seconds or round(time.monotonic() - began, 3)
        self.records.end(
            trial.config[NUMBER], replace(noted, status="failed", error=reason, seconds=seconds)
        )
        self._log(trial)

    def _log(self, trial: Any) -> None:
        number = trial.config[NUMBER]
        ending = self.records.ending(number)
        values = ", ".join(f"{k}={short(v)}" for k, v in trial.config.items() if k != NUMBER)
        if ending.status == "failed":
            outcome = f"failed: {ending.error}"
        else:
            score = "none" if ending.objective is None else f"{ending.objective:.4f}"
            costs = "".join(f", {name}={short(cost)}" for name, cost in ending.costs.items())
            outcome = f"{self.metric}={score}{costs} ({ending.status})"
        logger.info(
            "trial %d (of 0..%d) %s in %.1f s: %s",
            number,
            self.num_trials - 1,
            outcome,
            ending.seconds,
            values,
        )
