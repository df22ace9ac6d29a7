"""Explanations by hand."""

import numpy as np
import pyarrow as pa

from itemese.schema import Catalog, SemanticIds
from itemese.serving.explanation import Explainer
from itemese.serving.query import Related

CODES = [[0, 1, 0], [0, 1, 1], [0, 2, 0], [1, 1, 0], [1, 0, 0]]


def test_codes_siblings_and_the_nearest_of_the_history() -> None:
    names = list("abcde")
    counts = pa.array(np.ones(5), pa.int64())
    catalog = Catalog.from_table(
        pa.table({"item_id": names, "title": [n.upper() for n in names], "train_count": counts})
    )
    explainer = Explainer(catalog, SemanticIds(np.array(CODES, np.int32), (2, 3, 2)))
    found = explainer.explain(0, [2, 1, 3])
    assert found.codes == (0, 1, 0)
    assert found.siblings == (Related("b", "B", 2), Related("c", "C", 1))
    assert found.nearest == Related("b", "B", 2)
    assert explainer.explain(0, [3, 4]).nearest is None
    assert explainer.explain(0, []).nearest is None
    assert explainer.explain(4, [2]).siblings == (Related("d", "D", 1),)
