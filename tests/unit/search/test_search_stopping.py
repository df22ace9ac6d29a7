"""Successive halving by stages, without Tune and through its interface."""

from types import SimpleNamespace
from typing import Any

from itemese.search.config import AshaConfig
from itemese.search.messages import FOUND, NUMBER, OBJECTIVE, STAGE
from itemese.search.records import Ending, Trial
from itemese.search.stopping import Rungs, StagedAsha

Rows = list[tuple[str, float]]


def report(asha: StagedAsha, number: int, rows: Rows, *, found: bool = False) -> list[str]:
    """Return what is decided after each validation of a trial, up to a stop."""
    trial = SimpleNamespace(config={NUMBER: number})
    decided: list[str] = []
    best: dict[str, float] = {}
    for stage, value in rows:
        best[stage] = max(value, best.get(stage, value))
        result: dict[str, Any] = {OBJECTIVE: best[stage], STAGE: stage, FOUND: found}
        decided.append(asha.on_trial_result(None, trial, result))
        if decided[-1] == "STOP":
            break
    return decided


def asha(grace: int = 1, factor: int = 2, begun: tuple[Trial, ...] = ()) -> StagedAsha:
    return StagedAsha(AshaConfig(grace_period=grace, reduction_factor=factor), begun)


def test_one_in_so_many_goes_on_after_each_comparison() -> None:
    rungs = Rungs(AshaConfig(grace_period=1, reduction_factor=2))
    passed = [rungs.passes(n, "train", 1, best) for n, best in enumerate([0.1, 0.2, 0.3, 0.25])]
    assert passed == [True, True, True, True]  # each among the better half of those so far
    assert not rungs.passes(4, "train", 1, 0.15)
    assert rungs.passes(5, "train", 3, 0.0), "compared at 1, 2, 4, ... only"
    assert rungs.passes(6, "train", 2, 0.0), "no other trial was there"
    assert rungs.passes(7, "train", 2, 0.0), "equals are spared"
    three = Rungs(AshaConfig(grace_period=2, reduction_factor=3))
    counts = [count for count in range(1, 60) if three._compared(count)]
    assert counts == [2, 6, 18, 54]


def test_the_first_validation_may_stop_and_the_last_one_ends_nothing() -> None:
    reported = asha()
    assert report(reported, 0, [("train", 0.5)] * 40) == ["CONTINUE"] * 40
    assert report(reported, 1, [("train", 0.1)]) == ["STOP"]


def test_the_recipe_is_compared_and_never_stopped() -> None:
    reported = asha()
    assert report(reported, 1, [("train", 0.5)]) == ["CONTINUE"]
    assert report(reported, 0, [("train", 0.1)] * 4) == ["CONTINUE"] * 4
    assert reported.rungs.reached["train", 1] == {1: 0.5, 0: 0.1}
    assert report(reported, 2, [("train", 0.1)]) == ["STOP"]


def test_stages_are_compared_with_themselves_by_name() -> None:
    reported = asha(grace=2)
    good = [("text", 0.5), ("text", 0.6), ("unified", 0.8), ("unified", 0.9), ("unified", 0.9)]
    assert report(reported, 0, good) == ["CONTINUE"] * 5
    assert report(reported, 1, [("text", 0.5), ("text", 0.1)]) == ["CONTINUE", "STOP"]
    # As good as the best until the second stage; that one's first validation decides nothing.
    fallen = [*good[:2], ("unified", 0.1), ("unified", 0.1)]
    assert report(reported, 2, fallen) == ["CONTINUE"] * 3 + ["STOP"]
    # A recipe without the first stage meets those who had it in the second.
    assert report(reported, 3, [("unified", 0.95), ("unified", 0.95)]) == ["CONTINUE"] * 2
    assert report(reported, 4, [("unified", 0.2), ("unified", 0.2)]) == ["CONTINUE", "STOP"]


def test_a_finished_model_sets_the_bar_validation_by_validation_and_is_never_stopped() -> None:
    reported = asha()
    assert report(reported, 0, [("train", 0.3)]) == ["CONTINUE"]
    worse = [("train", 0.1), ("train", 0.2), ("train", 0.9)]
    assert report(reported, 1, worse, found=True) == ["CONTINUE"] * 3
    # Compared with what the finished one had at the same validation, not with its best.
    assert report(reported, 2, [("train", 0.4), ("train", 0.25)]) == ["CONTINUE"] * 2


def test_a_resumed_study_knows_what_others_had_reached() -> None:
    curve, stages = (0.5, 0.4, 0.7), ("text", "unified", "unified")
    begun = (
        Trial(0, {}, Ending("completed", 0.7, curve=curve, stages=stages)),
        Trial(1, {}, Ending("interrupted", curve=(0.9,), stages=("text",))),  # runs again
    )
    reported = asha(begun=begun)
    assert (
        report(reported, 1, [("text", 0.9), ("unified", 0.5), ("unified", 0.8)]) == ["CONTINUE"] * 3
    )
    assert report(reported, 2, [("text", 0.4)]) == ["STOP"]


def test_the_report_at_the_end_of_a_trial_stops_nothing() -> None:
    reported = asha()
    report(reported, 0, [("train", 0.9)])
    trial = SimpleNamespace(config={NUMBER: 1})
    assert reported.on_trial_result(None, trial, {OBJECTIVE: 0.1}) == "CONTINUE"
