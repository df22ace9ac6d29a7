"""Questions in words with a few choices, such as those of a memory benchmark.

The log holds ``questions.parquet``: user_id, timestamp (seconds, UTC), question, choices (texts),
answer (place of the right choice).
"""

import numpy as np

from itemese.core.requests import NO_ITEM, Requests
from itemese.core.schema import Histories, Split
from itemese.sequences.requests.building import Asked, locate

TABLE = "questions.parquet"


def build(block: Histories, split: Split, asked: Asked) -> Requests:
    """Return a request for each question: its text with a line for each choice.

    Candidates are the numbers of the choices, from 0; the label of the right one is true.
    """
    assert asked.table is not None, "the stage reads it"
    found = locate(asked.table, block, split)
    rows = asked.table.take(found.rows).to_pylist()
    sizes = np.array([len(row["choices"]) for row in rows], dtype=np.int64)
    number = np.arange(int(sizes.max(initial=1)))
    candidates = np.where(number < sizes[:, None], number, NO_ITEM).astype(np.int32)
    labels = number == np.array([row["answer"] for row in rows], dtype=np.int64)[:, None]
    text: list[str | None] = []
    for row in rows:
        lines = [f"({place}) {choice}" for place, choice in enumerate(row["choices"])]
        text.append("\n".join([row["question"], *lines]))
    times = np.array([row["timestamp"] for row in rows], dtype=np.int64)
    return Requests(found.user_id, found.place, times, candidates, labels, text=text)
