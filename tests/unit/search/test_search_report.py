"""The page of a study: every figure it promises, nothing from the network, no foreign markup."""

import re
from pathlib import Path
from typing import Any

from itemese.core.artifacts import Folder, Store
from itemese.search.config import SearchConfig
from itemese.search.outcome import StudyResult
from itemese.search.plots import level
from itemese.search.records import Ending, Trial
from itemese.search.report import write_report
from itemese.search.sampling import open_study
from itemese.search.space import Space

RATE = {"kind": "uniform", "low": 0.001, "high": 0.1, "log": True}
WIDTH = {"kind": "int", "low": 8, "high": 64, "step": 8}


def write(folder: Path, trials: list[Trial], **more: Any) -> str:
    parameters = {"training.learning_rate": RATE, "method.dim": WIDTH}
    study = {"recipe": "-", "parameters": parameters, "seeds": []} | more
    space = Space(SearchConfig.parse(study), {}, trials[0].values, ())
    store = Store(folder)
    found = StudyResult(
        name="s",
        uri=store.root.child("studies/s").uri,
        config=space.config,
        trials=tuple(trials),
        num_trials=len(trials),
        seconds=1.0,
    )
    write_report(found, space, store)
    return (folder / "studies" / "s" / "report.html").read_text()


def trials() -> list[Trial]:
    rows = []
    for n in range(8):
        values = {"training.learning_rate": 0.001 * (n + 1), "method.dim": 8 * (n + 1)}
        score = 0.3 - 0.01 * (n - 4) ** 2
        costs = {"parameters": 100.0 * (n + 1)}
        rows.append(
            Trial(
                n,
                values,
                Ending(
                    "completed",
                    score,
                    costs=costs,
                    curve=(score / 2, score),
                    stages=("train", "train"),
                ),
            )
        )
    stopped = Ending("stopped", 0.1, curve=(0.1,), stages=("train",))
    failed = Ending("failed", error="<script>alert('a')</script> must be finite")
    return [*rows, Trial(8, rows[0].values, stopped), Trial(9, rows[1].values, failed)]


def test_where_trials_were_stopped_all_are_compared_after_as_many_validations(
    tmp_path: Path,
) -> None:
    rate = {"training.learning_rate": RATE, "method.dim": WIDTH}
    config = SearchConfig.parse({"recipe": "-", "parameters": rate})
    space = Space(config, {}, {}, ())

    def levelled(rows: list[Trial]) -> tuple[list[float], str]:
        study = open_study(space, rows, name="s", home=Folder.at(tmp_path), url=None)
        even, when = level(study, rows)
        return [t.value for t in even.trials if t.value is not None], when

    values, when = levelled(trials())
    assert when == " after 1 validation"
    assert values == [t.ending.curve[0] for t in trials() if t.ending.curve]
    assert len(values) == 9
    whole = [t for t in trials() if t.ending.status == "completed"]
    assert levelled(whole) == ([t.ending.objective for t in whole], "")
    page = write(tmp_path, trials())
    assert "val/ndcg@10 after 1 validation by method.dim" in page
    # One trial run to its end and the others stopped: every figure is there all the same.
    assert "Importances" in headings(write(tmp_path, [whole[4], *early(whole)]))


def early(rows: list[Trial]) -> list[Trial]:
    """Return trials as if each had been stopped at its first validation."""
    return [
        Trial(
            n,
            t.values,
            Ending("stopped", t.ending.curve[0], curve=t.ending.curve[:1], stages=("train",)),
        )
        for n, t in enumerate(rows, start=1)
    ]


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_the_page_shows_history_importances_slices_coordinates_and_curves(tmp_path: Path) -> None:
    page = write(tmp_path, trials())
    assert headings(page) == [
        "History",
        "Importances",
        "Slices",
        "Parallel coordinates",
        "Learning curves",
        "Trials",
    ]
    assert "10 trials (8 completed, 1 stopped, 1 failed)" in page
    assert "Best trial: 4" in page


def test_a_study_with_costs_shows_its_front(tmp_path: Path) -> None:
    page = write(tmp_path, [t for t in trials() if t.number < 8], minimise=["parameters"])
    assert headings(page)[0] == "Pareto front"
    assert page.count("on the front") == 5, "the best and those cheaper than it"


def test_the_page_loads_nothing_and_fits_a_phone(tmp_path: Path) -> None:
    page = write(tmp_path, trials())
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "<script" not in page
    assert len(page) < 1_500_000
    assert "default-src 'none'" in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "<script>alert" not in page


def test_a_study_without_one_good_trial_has_a_page(tmp_path: Path) -> None:
    page = write(tmp_path, [Trial(0, trials()[0].values, Ending("failed", error="no memory"))])
    assert "no memory" in page
    assert headings(page) == ["Trials"]
