"""What a trial reports of a method that does not train."""

from pathlib import Path
from typing import Any

import pytest

from itemese.core.artifacts import Store
from itemese.search.trial import run_trial

pytestmark = pytest.mark.ray

RECIPE: dict[str, Any] = {
    "name": "graph",
    "logs": {"source": "simulated", "simulation": {"num_users": 60, "num_items": 400}},
    "method": {"name": "transition_graph"},
}


def test_a_method_that_does_not_train_reports_its_one_validation(
    ray_cluster: str, tmp_path: Path
) -> None:
    found: list[list[dict[str, Any]]] = []
    for _ in range(2):  # built, then found finished
        rows: list[dict[str, Any]] = []
        outcome = run_trial(RECIPE, metric="val/ndcg@10", store=Store(tmp_path), report=rows.append)
        found.append(rows)
        assert len(rows) == 1
        assert outcome.curve == (outcome.metrics["val/ndcg@10"],)
        assert outcome.stages == ("built",)
        assert rows[0]["val/ndcg@10"] == outcome.metrics["val/ndcg@10"] > 0
    assert found[0][0]["objective"] == found[1][0]["objective"]
