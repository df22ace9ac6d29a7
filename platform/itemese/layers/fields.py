"""Encoded fields of requests as padded tensors.

Shapes: B batch, T longest history of the batch, L elements of a list.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from itemese.core.fields import unknown_rows
from itemese.core.schema import Request

PREFIX = "fields/"


def pad_fields(requests: Sequence[Request]) -> dict[str, Tensor]:
    """Return the fields of a batch, each under ``fields/<key>``; texts are left out.

    User fields are ``[B, ...]``, event fields ``[B, T, ...]``, and context fields
    ``[B, T + 1, ...]``: row p of a context is what was known when event p happened, and row T of a
    history of T events the context of the request. What a request does not hold is unknown, as is
    everything after its last row. A batch without any fields has no entry.
    """
    likes = {key: rows for request in requests for key, rows in request.fields.items()}
    longest = max(len(request.history) for request in requests)
    batch = {}
    for key, like in likes.items():
        like = np.asarray(like)
        if like.dtype == object:
            continue
        owner = key.partition(".")[0]
        given = [request.fields.get(key) for request in requests]
        if owner == "user":
            unknown = unknown_rows(like[None], 1)[0]
            batch[PREFIX + key] = _stacked([unknown if g is None else g for g in given])
            continue
        size = longest + (owner == "context")
        rows = [unknown_rows(like, size) for _ in requests]
        for row, values in zip(rows, given, strict=True):
            if values is not None:
                row[: len(values)] = values
        batch[PREFIX + key] = _stacked(rows)
    return batch


def _stacked(rows: Sequence[np.ndarray]) -> Tensor:
    """Stack rows; indices become int64."""
    stacked = torch.from_numpy(np.stack(rows))
    return stacked if stacked.is_floating_point() else stacked.long()
