"""Every sentence that a bad study file earns, and what the good one means."""

from typing import Any

import pytest

from itemese.core.errors import ConfigError
from itemese.search.config import SearchConfig, check_metric

GOOD: dict[str, Any] = {"kind": "uniform", "low": 0.1, "high": 0.5}


def study(**changes: Any) -> dict[str, Any]:
    return {"recipe": "r.yaml", "parameters": {"training.learning_rate": GOOD}} | changes


def one(**parameter: Any) -> dict[str, Any]:
    return study(parameters={"a.b": parameter})


def test_a_good_study_is_read() -> None:
    config = SearchConfig.parse(study(num_trials=3, seeds=[4, 5]))
    assert config.metric == "val/ndcg@10"
    assert config.seeds == (4, 5)
    assert config.parameters["training.learning_rate"].edges() == [0.1, 0.5]
    dumped = config.model_dump(mode="json")
    assert dumped["parameters"]["training.learning_rate"]["high"] == 0.5
    assert SearchConfig.parse(dumped) == config


@pytest.mark.parametrize(
    ("values", "sentences"),
    [
        (study(parameters={}), ["`parameters` must name at least one value", "got {}"]),
        (study(parameters=None), ["`parameters` must name at least one value"]),
        (study(parameters=["x"]), ["`parameters` must name at least one value"]),
        ({"recipe": "r.yaml"}, ["`parameters` must be given"]),
        (
            one(kind="uniform", low=2, high=1),
            ["`parameters.a.b.low` must be < high", "got 2.0 >= 1.0"],
        ),
        (one(kind="int", low=3, high=3), ["`parameters.a.b.low` must be < high; got 3 >= 3"]),
        (
            one(kind="uniform", low=0, high=1, log=True),
            ["`parameters.a.b.low` must be > 0 where `log` is true; got 0.0"],
        ),
        (
            one(kind="int", low=0, high=8, log=True),
            ["`parameters.a.b.low` must be > 0 where `log` is true; got 0"],
        ),
        (
            one(kind="int", low=1, high=9, log=True, step=2),
            ["`parameters.a.b.step` must be 1 where `log` is true; got 2"],
        ),
        (
            one(kind="int", low=2, high=9, step=4),
            ["`parameters.a.b.high` must be low plus a multiple of step", "Write 6."],
        ),
        (
            one(kind="uniforn", low=0, high=1),
            ["`parameters.a.b.kind` must be a known kind; got 'uniforn'", "Did you mean 'uniform'"],
        ),
        (one(low=0, high=1), ["`parameters.a.b.kind` must be a known kind; got None", "choice"]),
        (study(parameters={"a.b": 3}), ["`parameters.a.b.kind` must be a known kind; got 3"]),
        (
            one(kind="uniform", low=0, high=1, stepp=2),
            ["`parameters.a.b.stepp` must be a known key", "high, kind, log, low"],
        ),
        (one(kind="int", low=0), ["`parameters.a.b.high` must be given"]),
        (one(kind="int", low=0.5, high=2), ["`parameters.a.b.low` must be", "got 0.5"]),
        (
            one(kind="choice", choices=[[256, 256], [64, 64]]),
            ["`parameters.a.b.choices` must be made of scalars", "one parameter a part"],
        ),
        (
            one(kind="choice", choices=[1]),
            ["`parameters.a.b.choices` must hold at least two values; got [1]"],
        ),
        (
            one(kind="choice", choices=[1, 2, 1]),
            ["`parameters.a.b.choices` must differ; got 1 twice"],
        ),
        (one(kind="choice", choices="abc"), ["`parameters.a.b.choices` must be a list of values"]),
        (
            study(parameters={"a/b": GOOD}),
            ["`parameters.a/b` must be a flat dotted path; got 'a/b'"],
        ),
        (
            study(metric="test/ndcg@10"),
            ["`metric` must be a validation metric", "fitted to it", "Write val/ndcg@10."],
        ),
        (
            study(metric="train/loss"),
            ["`metric` must be a validation metric", "weights are zero"],
        ),
        (
            study(metric="test/free/hit@1"),
            ["`metric` must be a validation metric", "fitted to it", "Write val/ndcg@10."],
        ),
        (study(metric="val/loss"), ["`metric` must be a validation metric", "losses and code"]),
        (study(metric="recall@5"), ["got 'recall@5'", "Write val/recall@5."]),
        (study(mode="min"), ["`mode` must be 'max'; got 'min'"]),
        (study(seeds=[1, 1]), ["`seeds` must differ; got [1, 1]"]),
        (study(seeds=[-1]), ["`seeds.0` must be greater than or equal to 0; got -1"]),
        (study(seeds=[1, 2**32]), ["`seeds.1` must be less than 4294967296; got 4294967296"]),
        (
            study(num_trials=3, enqueue=[{"a.b": 1}, {"a.b": 2}, {"a.b": 3}]),
            ["`num_trials` must hold the recipe", "every point of `enqueue`, at least 4; got 3"],
        ),
        (
            study(
                parameters={"training.validate_every": {"kind": "int", "low": 1, "high": 3}},
                asha={"grace_period": 1},
            ),
            ["`asha` must be left out where training.validate_every varies", "between 1 and 3"],
        ),
        (study(num_trials=0), ["`num_trials` must be greater than or equal to 1; got 0"]),
        (study(trials=3), ["`trials` must be a known key", "num_trials"]),
        (
            study(asha={"max_validations": 3}),
            ["`asha.max_validations` must be a known key"],
        ),
    ],
)
def test_bad_study_says_what_is_wrong(values: dict[str, Any], sentences: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        SearchConfig.parse(values)
    for sentence in sentences:
        assert sentence in str(caught.value)


def test_true_is_not_one_but_both_may_be_chosen() -> None:
    config = SearchConfig.parse(one(kind="choice", choices=[True, 1]))
    assert config.parameters["a.b"].edges() == [True, 1]
    assert not SearchConfig.parse(one(kind="int", low=0, high=3)).parameters["a.b"].contains(True)


def test_int_holds_only_its_grid() -> None:
    parameter = SearchConfig.parse(one(kind="int", low=2, high=8, step=3)).parameters["a.b"]
    assert [value for value in range(12) if parameter.contains(value)] == [2, 5, 8]


WIDTH = {"kind": "choice", "choices": [1, 2]}
DROPOUT = {"kind": "choice", "choices": [0.1, 0.2], "when": {"a.layers": 1}}


def test_conditions_that_rule_each_other_out_are_refused() -> None:
    never = {**WIDTH, "when": {"a.layers": 2, "a.dropout": 0.2}}
    parameters = {"a.layers": WIDTH, "a.dropout": DROPOUT, "a.heads": never}
    with pytest.raises(ConfigError, match=r"`parameters.a.heads.when` must be able to hold"):
        SearchConfig.parse(study(parameters=parameters))
    # Also where the grandparents are what cannot be together.
    other = {**WIDTH, "when": {"a.layers": 2}}
    never = {**WIDTH, "when": {"a.dropout": 0.2, "a.other": 1}}
    with pytest.raises(ConfigError, match=r"`parameters.a.heads.when` must be able to hold"):
        SearchConfig.parse(study(parameters={**parameters, "a.other": other, "a.heads": never}))


def test_surroundings_are_all_that_can_be_together() -> None:
    parameters = {
        "a.layers": WIDTH,
        "a.either": {**WIDTH, "when": {"a.layers": [1, 2]}},
        "a.other": {**WIDTH, "when": {"a.layers": 2}},
        "a.heads": {**WIDTH, "when": {"a.other": [1, 2], "a.either": 1}},
    }
    config = SearchConfig.parse(study(parameters=parameters))
    assert config.surroundings("a.layers") == [{}]
    assert config.surroundings("a.heads") == [
        {"a.layers": 2, "a.other": other, "a.either": 1} for other in (1, 2)
    ]


def test_an_auc_may_be_judged_and_what_is_better_when_lower_may_not() -> None:
    check_metric("val/auc")
    with pytest.raises(
        ConfigError, match=r"better when larger.*got .val/log_loss.\. Write val/auc"
    ):
        check_metric("val/log_loss")
    with pytest.raises(ConfigError, match="must be a validation metric"):
        check_metric("test/auc")
