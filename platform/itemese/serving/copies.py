"""What the items of an answer owe to a copied transition graph."""

from collections.abc import Sequence

from torch import Tensor, nn

from itemese.methods.base import Batch, Method
from itemese.methods.copying import Copying
from itemese.serving.query import Query

CopiedItems = dict[int, tuple[float, int]]
"""By item_index: the share of the probability that was copied, and the item of the history that the
item mostly followed (-1 for none)."""


def copied_items(
    method: Method, module: nn.Module, queries: Sequence[Query], batch: Batch, items: Tensor
) -> list[CopiedItems | None]:
    """Return what was copied for each query; None where the method copies nothing.

    Args:
        method: Any.
        module: Its module.
        queries: B of them; nothing is computed unless one wants an explanation.
        batch: Theirs.
        items: ``[B, C]`` item_index, -1 for none.
    """
    found = None
    if isinstance(method, Copying) and any(query.explain for query in queries):
        found = method.copied(module, batch, items)
    if found is None:
        return [None] * len(queries)
    share, source = found
    return [
        {item: (part, before) for item, part, before in zip(*row, strict=True) if item >= 0}
        for row in zip(items.tolist(), share.tolist(), source.tolist(), strict=True)
    ]
