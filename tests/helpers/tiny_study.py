"""A tiny log and a space over it, for tests that run studies."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from itemese.search.config import SearchConfig
from itemese.search.space import Space, check_space

NUM_USERS, NUM_ITEMS, EVENTS = 48, 12, 8
TWO_HEADS = {"method.dim": 8, "method.num_heads": 2}
INDIVISIBLE = {"method.dim": 8, "method.num_heads": 3}


def write_log(folder: Path) -> None:
    """Users who walk round a ring of items, so that one epoch learns something."""
    folder.mkdir()
    rows = [
        {
            "user_id": f"u{user:02}",
            "item_id": f"i{(user + place) % NUM_ITEMS:02}",
            "timestamp": place,
        }
        for user in range(NUM_USERS)
        for place in range(EVENTS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "interactions.parquet")
    items = [{"item_id": f"i{item:02}", "title": f"Item {item}"} for item in range(NUM_ITEMS)]
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet")


def make_space(log: Path, **changes: Any) -> Space:
    recipe = {
        "name": "tiny",
        "logs": {"source": "parquet", "path": str(log)},
        "method": {"name": "sasrec", "dim": 12, "num_heads": 2, "num_layers": 1},
        "training": {"max_epochs": 2, "batch_size": 16, "learning_rate": 0.01},
        "evaluation": {"bootstrap_samples": 100},
    }
    study = {
        "recipe": "unused.yaml",
        "parameters": {
            "method.dim": {"kind": "choice", "choices": [8, 12]},
            "method.num_heads": {"kind": "choice", "choices": [2, 3]},
        },
        "enqueue": [TWO_HEADS],
        "num_trials": 3,
        "seeds": [5, 6],
    }
    return check_space(SearchConfig.parse(study | changes), recipe)
