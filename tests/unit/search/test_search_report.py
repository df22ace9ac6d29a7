"""The page of a study: every figure it promises, nothing from the network, no foreign markup."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from itemese.core.artifacts import Folder, Store
from itemese.evaluation.report.html import MOST_BYTES
from itemese.search.config import SearchConfig
from itemese.search.outcome import StudyResult, verdict
from itemese.search.plots import level
from itemese.search.records import Ending, Trial
from itemese.search.report import write_report
from itemese.search.sampling import open_study
from itemese.search.space import Space
from itemese.search.winner import Finalist, Rerun, Winner

RATE = {"kind": "uniform", "low": 0.001, "high": 0.1, "log": True}
WIDTH = {"kind": "int", "low": 8, "high": 64, "step": 8}


def study_of(trials: list[Trial], *, winner: Winner | None = None, **more: Any) -> StudyResult:
    """Return a study of these trials; more settings of it by name."""
    parameters = {"training.learning_rate": RATE, "method.dim": WIDTH}
    num_trials = more.pop("num_trials", len(trials))
    study = {"recipe": "-", "parameters": parameters, "seeds": []} | more
    config = SearchConfig.parse(study)
    return StudyResult("s", "-", config, tuple(trials), num_trials, 1.0, winner=winner)


def write(folder: Path, trials: list[Trial], **more: Any) -> str:
    found = study_of(trials, **more)
    space = Space(found.config, {"name": "mine"}, trials[0].values, ())
    write_report(found, space, Store(folder))
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
    page = write(tmp_path, [whole[4], *early(whole)])
    assert [caption for caption in captions(page) if caption.startswith("Share of the spread")]


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
    """Return the titles of sections, those that are folded away behind the others."""
    return re.findall(r"<h2[^>]*>(.*?)</h2>", page) + re.findall(r"<summary>(.*?)</summary>", page)


def captions(page: str) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", page)


def test_the_page_shows_history_importances_slices_coordinates_and_curves(tmp_path: Path) -> None:
    page = write(tmp_path, trials())
    assert headings(page) == [
        "Leaderboard",
        "Figures",
        "Details",
        "All trials",
        "Slices",
        "Parallel coordinates",
        "Settings",
        "Timings by stage",
        "Provenance",
    ]
    first = " ".join(captions(page)[:3])
    for word in ("in the order of proposal", "Share of the spread", "at each validation"):
        assert word in first
    assert "10 trials (8 completed, 1 stopped, 1 failed)" in page
    assert "On validation trial 4 is the best, with ndcg@10 0.3000" in page
    assert page.index('class="verdict"') < page.index("<h2")
    board = page[page.index("Leaderboard") : page.index("Figures")]
    assert re.findall(r'<th scope="row"[^>]*>(\d)', board)[:3] == ["4", "3", "5"], "best first"
    assert "recipe as it is</span>" in board


def test_a_study_with_costs_shows_its_front(tmp_path: Path) -> None:
    page = write(tmp_path, [t for t in trials() if t.number < 8], minimise=["parameters"])
    assert "numbers are trials" in captions(page)[0], "the front is the first figure"
    trials_table = page[page.index("<summary>All trials") :]
    assert trials_table.count("on the front") == 5, "the best and those cheaper than it"


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
    assert "No trial has a figure." in page
    assert headings(page)[:2] == ["Details", "All trials"]


def test_three_hundred_trials_fit(tmp_path: Path) -> None:
    rows = [Trial(n, trials()[n % 8].values, trials()[n % 8].ending) for n in range(300)]
    assert len(write(tmp_path, rows).encode()) <= MOST_BYTES


def winner_of(trial: int = 1, **changes: Any) -> Winner:
    values = trials()[trial].values
    test = {"test/recall@10": {"mean": 0.1, "low": 0.09, "high": 0.11}}
    gain = {
        "metric": "ndcg@10",
        "falling": False,
        "ours": 0.06,
        "theirs": 0.05,
        "difference": 0.01,
        "low": 0.004,
        "high": 0.016,
        "users": 2000,
        "seeds": 2,
    }
    base = Winner(
        trial=trial,
        values=values,
        finalists=(
            Finalist(0, trials()[0].values, 0.2, False, {5: 0.21, 6: 0.23}, 0.22),
            Finalist(1, values, 0.3, False, {5: 0.25, 6: 0.27}, 0.26),
            Finalist(2, trials()[2].values, 0.3, True, {}, None, "it failed"),
        ),
        reruns=tuple(Rerun(seed, {}, {}) for seed in (5, 6)),
        validation=0.26,
        test=test,
        gain=gain,
        seconds=1.0,
        bundle="-",
        bundled_seed=6,
    )
    return replace(base, **changes)


def said(**changes: Any) -> str:
    return verdict(study_of(trials(), winner=winner_of(**changes)))


def test_the_verdict_states_the_gain_on_the_test_split() -> None:
    assert said() == (
        "The winner, trial 1, finds the next item in its first ten for 1 of 10 test requests "
        "(mean of 2 fresh seeds). Against the recipe as it is, test ndcg@10 changes by +0.0100 "
        "(0.0500 to 0.0600); the interval over 2,000 users, [+0.0040, +0.0160], excludes 0: the "
        "search gained."
    )
    assert "(one fresh seed)" in said(reruns=(Rerun(5, {}, {}),))


@pytest.mark.parametrize(
    ("ends", "falling", "ending"),
    [
        ((-0.01, 0.02), False, "includes 0: no gain is shown."),
        ((-0.02, -0.01), False, "excludes 0: the search lost."),
        ((-0.02, -0.01), True, "excludes 0: the search gained."),
        ((0.01, 0.02), True, "excludes 0: the search lost."),
        ((-0.01, 0.02), True, "includes 0: no gain is shown."),
    ],
)
def test_no_gain_and_a_loss_are_named(
    ends: tuple[float, float], falling: bool, ending: str
) -> None:
    gain = winner_of().gain
    assert gain is not None
    changed = {**gain, "low": ends[0], "high": ends[1], "falling": falling}
    assert said(gain=changed).endswith(ending)


def test_a_recipe_that_wins_or_fails_is_named() -> None:
    text = said(trial=0, gain=None)
    assert text.startswith("The winner, the recipe as it is, finds the next item")
    assert text.endswith("gained nothing: no other finalist did better on fresh seeds.")
    assert "is unknown, because that one failed." in said(gain=None, recipe_failed="No memory.")


def test_what_only_validation_saw_is_no_claim_about_the_test_split() -> None:
    text = verdict(study_of(trials()))
    assert text == (
        "On validation trial 4 is the best, with ndcg@10 0.3000; the recipe as it is has 0.1400. "
        "Nothing was trained again on fresh seeds or tested, and the best of many trials looks "
        "better than it is."
    )
    assert "; that is the recipe as it is." in verdict(study_of(trials()[:1]))
    assert "has 0.1400 (10 of 12 trials ended)." in verdict(study_of(trials(), num_trials=12))
    assert "the rule of the study chooses trial" in verdict(
        study_of(trials()[:8], minimise=["parameters"])
    )


def test_the_page_of_a_winner_shows_its_finalists_best_first(tmp_path: Path) -> None:
    page = write(tmp_path, trials(), winner=winner_of(tested=2), seeds=[5, 6])
    board = page[page.index("Leaderboard") : page.index("Figures")]
    rows = re.findall(r'<th scope="row"[^>]*>([^\s<]+)', board)
    assert rows == ["1", "0", "2", "recall@10"]
    assert '<span class="mark">winner</span>' in board
    assert "it failed" in board
    assert "This is winner 2 of the study to meet the test split." in page
    assert "seed 6" in page[page.index("<summary>Provenance") :]
