"""Samplers behind the records: a study cut off anywhere goes on as if it had not been."""

import math
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, ConfigError
from itemese.search.config import SearchConfig
from itemese.search.messages import NUMBER, OBJECTIVE, STAGE
from itemese.search.records import Ending, Records
from itemese.search.sampling import Recorder, StudySearch, database_url, open_study, propose
from itemese.search.space import Space

RATE = {"kind": "uniform", "low": 0.001, "high": 0.1, "log": True}
WIDTH = {"kind": "int", "low": 8, "high": 64, "step": 8}
KIND = {"kind": "choice", "choices": ["a", "b"]}
PLAIN: dict[str, Any] = {"t.rate": RATE, "m.width": WIDTH, "m.kind": KIND}
DEFAULTS: dict[str, Any] = {"t.rate": 0.05, "m.width": 32, "m.kind": "a"}
CONDITIONAL = {
    **PLAIN,
    "m.only_b": {"kind": "uniform", "low": 0, "high": 1, "when": {"m.kind": "b"}},
}


class Killed(BaseException):
    """The driver is gone."""


def make_space(sampler: str = "tpe", parameters: dict[str, Any] = PLAIN, **more: Any) -> Space:
    study = {"recipe": "-", "parameters": parameters, "sampler": sampler, "seed": 3}
    return Space(
        SearchConfig.parse(study | more), {}, dict(DEFAULTS), ({**DEFAULTS, "m.width": 8},)
    )


def objective(values: dict[str, Any]) -> float:
    """Best at rate 0.01, width 48, kind b."""
    off = abs(math.log10(values["t.rate"] / 0.01)) + abs(values["m.width"] - 48) / 40
    return 1 - off + 0.3 * (values["m.kind"] == "b") - 0.2 * abs(values.get("m.only_b", 0.5) - 0.5)


class Driver:
    """What Tune does with a searcher, one trial at a time, in this process."""

    def __init__(self, folder: Path, space: Space, *, url: str | None = None) -> None:
        self.home = Folder.at(folder)
        self.space = space
        self.records = Records(self.home.child("records"))
        begun = self.records.read()
        self.study = open_study(space, begun, name="s", home=self.home, url=url)
        self.search = StudySearch(space, self.records, self.study)
        self.over = sum(t.ending.status != "interrupted" for t in begun)
        self.ran: list[int] = []

    def recorder(self, num_trials: int) -> Recorder:
        """Return the callback beside the searcher."""
        return Recorder(self.search, num_trials=num_trials, metric="val/ndcg@10")

    def run(self, total: int, *, die: tuple[int, str] | None = None) -> None:
        """Run the missing trials; die at (trial, moment)."""

        def perhaps(moment: str, number: int) -> None:
            if die == (number, moment):
                raise Killed

        for count in range(total - self.over):
            trial_id = f"{count}-{len(self.ran)}"
            config = self.search.suggest(trial_id)
            number = config.pop(NUMBER)
            perhaps("proposed", number)
            self.ran.append(number)
            if number % 5 == 4:
                self.search.on_trial_complete(trial_id, error=True)
                perhaps("reported", number)
                self.records.end(number, Ending("failed", error="on purpose"))
                continue
            value = objective(config)
            curve = (value, value - 0.3)  # training on makes it worse
            rows = [
                {OBJECTIVE: value, self.space.config.metric: now, STAGE: "train"} for now in curve
            ]
            self.search.on_trial_result(trial_id, rows[0])
            lags = number > 0 if self.space.config.asha else number % 5 == 3
            if lags and not self.space.config.minimise:
                # Tune reports to the searcher the validation that stops a trial at its end only.
                self.search.on_trial_complete(trial_id, rows[1])
                continue
            self.search.on_trial_result(trial_id, rows[1])
            perhaps("trained", number)
            costs = {"parameters": float(config["m.width"])} if self.space.config.minimise else {}
            stages = ("train", "train")
            self.records.end(
                number, Ending("completed", value, costs=costs, curve=curve, stages=stages)
            )
            perhaps("ended", number)
            self.search.on_trial_complete(trial_id, {OBJECTIVE: value})
            perhaps("reported", number)


def proposals(folder: Path) -> list[tuple[Any, ...]]:
    trials = Records(Folder.at(folder).child("records")).read()
    return [(t.number, t.values, t.ending.status, t.ending.objective) for t in trials]


@pytest.mark.parametrize(
    ("sampler", "parameters", "more"),
    [
        ("tpe", PLAIN, {}),
        ("tpe", CONDITIONAL, {}),
        ("tpe", PLAIN, {"asha": {"grace_period": 1}}),
        ("tpe", PLAIN, {"minimise": ["parameters"]}),
        ("cmaes", PLAIN, {}),
        ("random", CONDITIONAL, {}),
        ("nsga2", PLAIN, {}),
        ("nsga2", CONDITIONAL, {"minimise": ["parameters"]}),
        ("quasi_random", PLAIN, {}),
    ],
)
def test_a_study_cut_off_anywhere_proposes_what_it_would_have(
    tmp_path: Path, sampler: str, parameters: dict[str, Any], more: dict[str, Any]
) -> None:
    space = make_space(sampler, parameters, **more)
    Driver(tmp_path / "whole", space).run(24)
    whole = proposals(tmp_path / "whole")
    assert [row[0] for row in whole] == list(range(24))
    assert whole[0][1] == space.defaults
    assert whole[1][1] == space.enqueued[0]
    assert len({str(row[1]) for row in whole[2:]}) > 15  # no generator draws one thing for ever

    ran: list[int] = []
    moments = [(0, "proposed"), (2, "ended"), (9, "reported"), (11, "trained"), (15, "ended"), None]
    if space.config.asha:
        moments = [(0, "proposed"), (9, "reported"), (13, "proposed"), (15, "proposed"), None]
    for die in moments:
        driver = Driver(tmp_path / "cut", space)
        try:
            driver.run(24, die=die)
        except Killed:
            assert die is not None
        ran += driver.ran
    assert proposals(tmp_path / "cut") == whole
    # Of those proposed or trained that had not ended only the trained one ran twice; trial 9 was
    # reported as failed before any record of it.
    assert sorted(ran) == sorted([*range(24), 9, *([] if space.config.asha else [11])])


def test_tpe_learns_and_each_seed_goes_its_own_way(tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "random"):
        found = []
        for seed in range(5):
            folder = tmp_path / f"{sampler}{seed}"
            Driver(folder, make_space(sampler, seed=seed)).run(40)
            found.append(max(row[3] for row in proposals(folder) if row[3] is not None))
        best[sampler] = sorted(found)[2]
    assert best["tpe"] >= best["random"]
    assert proposals(tmp_path / "tpe0")[5][1] != proposals(tmp_path / "tpe1")[5][1]


def test_the_database_shows_the_study_and_is_made_anew_from_the_records(tmp_path: Path) -> None:
    space, folder = make_space(), tmp_path / "s"
    url = database_url(Folder.at(folder))
    assert url == f"sqlite:///{folder}/optuna.db"
    folder.mkdir()
    with pytest.raises(Killed):
        Driver(folder, space, url=url).run(8, die=(7, "trained"))
    shown = optuna.load_study(study_name="s", storage=url)
    states = [t.state.name for t in shown.trials]
    assert states == [*["COMPLETE"] * 3, "PRUNED", "FAIL", "COMPLETE", "COMPLETE", "RUNNING"]
    assert shown.metric_names == ["val/ndcg@10"]
    before = [(t.params, t.value) for t in shown.trials]

    (folder / "optuna.db").write_bytes(b"not a database at all, whatever it was before")
    driver = Driver(folder, space, url=url)
    again = optuna.load_study(study_name="s", storage=url)
    assert [t.state.name for t in again.trials] == states
    assert [(t.params, t.value) for t in again.trials] == before
    driver.run(8)
    assert driver.ran == [7]
    assert [t.state.name for t in optuna.load_study(study_name="s", storage=url).trials][7] == (
        "COMPLETE"
    )


def test_a_database_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    space = make_space()
    with pytest.raises(ConfigError, match=r"`database` must be a database that can be opened"):
        Driver(tmp_path / "s", space, url=f"sqlite:///{tmp_path}/no/such/folder/o.db")
    with pytest.raises(ConfigError, match=r"`database` must be .*got .nonsense."):
        Driver(tmp_path / "s", space, url="nonsense")
    # A database whose Python driver is not installed, or no server answers: neither is a traceback.
    with pytest.raises(ConfigError, match=r"got .postgresql://me:\*\*\*@127.0.0.1:9/s"):
        Driver(tmp_path / "s", space, url="postgresql://me:secret@127.0.0.1:9/s")
    file = tmp_path / "theirs.db"
    file.write_bytes(b"another program's file, which must stay")
    with pytest.raises(ConfigError, match="file is not a database"):
        Driver(tmp_path / "s", space, url=f"sqlite:///{file}")
    assert file.read_bytes().startswith(b"another")


def test_another_studys_name_in_a_shared_database_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    Driver(tmp_path / "one", make_space(), url=url).run(1)
    with pytest.raises(ConfigError, match=r"`name` must be free in the database; got 's'"):
        Driver(tmp_path / "two", make_space(), url=url)
    assert len(optuna.load_study(study_name="s", storage=url).trials) == 1


def test_a_database_that_goes_read_only_stops_the_study_and_loses_nothing(tmp_path: Path) -> None:
    space, folder = make_space(), tmp_path / "s"
    folder.mkdir()
    url = database_url(Folder.at(folder))
    driver = Driver(folder, space, url=url)
    driver.run(2)
    with sqlite3.connect(folder / "optuna.db") as connection:
        connection.execute("drop table trial_params")
    with pytest.raises(ArtifactError, match=r"`database` must stay writable.*records .* safe"):
        Driver.run(driver, 4)
    resumed = Driver(folder, space)
    resumed.run(4)
    assert [row[0] for row in proposals(folder)] == [0, 1, 2, 3]


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    Driver(tmp_path, make_space()).run(3)
    (tmp_path / "records" / "00001.begin.json").unlink()
    with pytest.raises(ArtifactError, match=r"got none of trial 1. Bring 00001.begin.json back"):
        Driver(tmp_path, make_space())


def test_recorder_notes_why_a_trial_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Driver(tmp_path, make_space()).recorder(num_trials=2)
    records = recorder.records
    for number, reported in enumerate(("", "`dim` must be even.")):
        records.begin(number, {"a.b": 1}, {})
        records.end(number, Ending("interrupted", error=reported))
        dead = SimpleNamespace(
            trial_id=str(number),
            config={NUMBER: number, "a.b": 1},
            get_pickled_error=lambda: None,
            get_error=lambda: "oom",
        )
        recorder.on_trial_start(0, [dead], dead)
        assert records.ending(number).status == "interrupted"  # until the driver says otherwise
        with caplog.at_level("INFO", logger="itemese.search"):
            recorder.on_trial_error(0, [dead], dead)
    assert records.ending(0).error == "The worker died: oom"
    assert records.ending(1).error == "`dim` must be even."
    assert records.ending(1).status == "failed"
    assert "trial 1 (of 0..1) failed: `dim` must be even." in caplog.text


def test_a_storage_that_fails_a_trial_fails_the_study_and_not_the_trial(tmp_path: Path) -> None:
    driver = Driver(tmp_path, make_space())
    recorder = driver.recorder(num_trials=1)
    records = recorder.records
    records.begin(0, {}, {})
    full = ArtifactError("`storage` must have room; got a full disk. Free some.")
    dead = SimpleNamespace(
        trial_id="a",
        config={NUMBER: 0},
        get_pickled_error=lambda: SimpleNamespace(cause=full),
        get_error=lambda: None,
    )
    with pytest.raises(ArtifactError, match="a full disk"):
        recorder.on_trial_error(0, [dead], dead)
    assert recorder.fault is full
    driver.search.fault = gone = ArtifactError("`database` must stay writable; got none. Fix it.")
    dead.get_pickled_error = lambda: SimpleNamespace(cause=ValueError("Tune: trial stopped"))
    with pytest.raises(ArtifactError) as found:
        recorder.on_trial_error(0, [dead], dead)
    assert found.value is gone
    assert records.ending(0).status == "interrupted", "so that a resume runs it"


def test_a_trial_that_completed_counts_also_if_it_died_before_tune_heard(tmp_path: Path) -> None:
    driver = Driver(tmp_path, make_space())
    driver.search.suggest("a")
    driver.records.end(0, Ending("completed", 0.5))
    driver.search.on_trial_complete("a", error=True)
    (reported,) = driver.study.trials
    assert (reported.state, reported.value) == (TrialState.COMPLETE, 0.5)


def test_quasi_random_draws_differ_before_any_trial_has_ended_well(tmp_path: Path) -> None:
    space = make_space("quasi_random")
    study = open_study(space, [], name="s", home=Folder.at(tmp_path), url=None)
    rates = set()
    for number in range(8):
        trial, values = propose(study, space, number)
        study.tell(trial, state=TrialState.FAIL)
        rates.add(values["t.rate"])
    assert len(rates) == 8 - 1, "but for the two that are given"
