"""Cuts, lengths and the config, by hand and against sorting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemese.core.errors import ConfigError, DataError
from itemese.core.tasks import run_tasks
from itemese.sequences.config import SequencesConfig
from itemese.sequences.facts import Lengths
from itemese.sequences.splits import find_cut, split_by_time, split_last_two, tie_runs, time_counts


@given(st.lists(st.integers(0, 2**40) | st.integers(0, 5), min_size=1, max_size=50), st.data())
@settings(deadline=None)
def test_find_cut_equals_sorting(times, data):
    place = data.draw(st.integers(0, len(times) - 1))
    array = np.array(times)
    found = find_cut(
        lambda start, width: time_counts(array, start, width), min(times), max(times), place
    )
    assert found == sorted(times)[place]


def test_last_two_are_held_out_of_histories_of_three():
    offsets = np.array([0, 1, 3, 6, 10])
    assert split_last_two(offsets).tolist() == [0, 0, 0, 0, 1, 2, 0, 0, 1, 2]


def test_events_at_a_cut_go_to_the_later_part():
    assert split_by_time(np.array([1, 4, 5, 6, 7, 9]), 5, 7).tolist() == [0, 0, 1, 1, 2, 2]


def test_tie_runs_stop_at_the_user():
    offsets, times = np.array([0, 3, 5]), np.array([1, 2, 2, 2, 2])
    assert tie_runs(offsets, times, np.arange(5)).tolist() == [1, 2, 2, 2, 2]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(0, 60))
@settings(deadline=None)
def test_lengths_merge_and_describe(lengths, cut):
    parts = [Lengths.of(np.array(p, np.int64)) for p in (lengths[:cut], lengths[cut:])]
    reported = Lengths.merge(parts).describe()
    assert reported["min"] == min(lengths)
    assert reported["max"] == max(lengths)
    assert reported["p50"] == np.quantile(lengths, 0.5, method="lower")
    assert reported["p90"] == np.quantile(lengths, 0.9, method="lower")
    assert reported["mean"] == pytest.approx(np.mean(lengths), abs=1e-3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"min_user_events": -1}, "min_user_events"),
        ({"ties": "random"}, "'input' or 'shuffle'"),
        ({"split": "random"}, "leave_one_out"),
        ({"k_core": 5}, "must be a known key"),
        ({"test_share": 0.0}, "test_share"),
        ({"num_shards": 0}, "num_shards"),
        ({"validation_share": 0.6, "test_share": 0.5}, "less than 1"),
    ],
)
def test_config_refuses(values, said):
    with pytest.raises(ConfigError) as caught:
        SequencesConfig.parse(values, "sequences")
    assert "`sequences" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.ray
def test_tasks_keep_few_in_flight_and_tell_errors_plainly(ray_cluster):
    import ray

    def work(value):
        from itemese.core.errors import DataError

        if value == 13:
            message = "`value` must not be 13; got 13. Take another."
            raise DataError(message)
        return value * 2

    task = ray.remote(work)
    submitted, ahead = 0, 0

    def submit(value):
        nonlocal submitted
        submitted += 1
        return task.remote(value)

    found = {}
    for value, result in run_tasks(submit, range(12), per_cpu=1):
        ahead = max(ahead, submitted - len(found))
        found[value] = result
    assert found == {value: value * 2 for value in range(12)}
    assert ahead <= 4  # CPUs of the cluster
    with pytest.raises(DataError) as caught:
        list(run_tasks(submit, range(10, 16)))
    assert str(caught.value) == "`value` must not be 13; got 13. Take another."
