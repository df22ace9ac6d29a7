"""Encode a catalogue on the cluster: Ray Data tasks read and encode blocks of the vectors' file.

Shapes: N vectors, C codebooks.
"""

from typing import Any

import numpy as np
import ray

from itemese.codebooks.base import Quantizer
from itemese.codebooks.rows import ROWS_AT_ONCE, Rows, VectorFile
from itemese.core.artifacts import Folder
from itemese.core.cluster import connect
from itemese.core.tasks import stream_blocks


class EncodeByRay:
    """Encodes the rows of an embeddings artifact, which every node must reach.

    Gives what `base.encode_here` gives: a row's codes depend on that row only.
    """

    def __init__(self, embeddings: Folder, *, rows_at_once: int = ROWS_AT_ONCE) -> None:
        self._embeddings = embeddings
        self._rows_at_once = rows_at_once

    def __call__(self, quantizer: Quantizer, vectors: Rows) -> np.ndarray:
        """Return the codes ``[N, C] int32`` of ``vectors``, which must be the artifact's."""
        connect()
        starts = range(0, len(vectors), self._rows_at_once)
        given = [{"start": s, "stop": min(s + self._rows_at_once, len(vectors))} for s in starts]
        dataset = ray.data.from_items(given, override_num_blocks=len(given)).map_batches(
            _Encoder,
            fn_constructor_args=(type(quantizer), quantizer.config, quantizer.state()),
            fn_kwargs={"uri": self._embeddings.uri},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=len(given)),
            num_cpus=1,
        )
        codes = np.empty((len(vectors), len(quantizer.code_sizes)), dtype=np.int32)
        missing = len(vectors)
        for batch in stream_blocks(dataset, batch_format="numpy"):
            codes[batch["row"]] = batch["codes"]
            missing -= len(batch["row"])
        assert not missing, f"{missing} vectors came back without codes"
        return codes


class _Encoder:
    """An actor: one copy of the fitted quantizer, one block of rows at a time."""

    def __init__(self, kind: type[Quantizer], config: Any, state: dict[str, Any]) -> None:
        self._quantizer = kind(config)
        self._quantizer.restore(state)

    def __call__(self, block: dict[str, np.ndarray], *, uri: str) -> dict[str, np.ndarray]:
        """Return ``row`` and ``codes`` of the rows ``start..stop - 1``."""
        rows = slice(int(block["start"][0]), int(block["stop"][0]))
        codes = self._quantizer.encode(VectorFile(Folder.at(uri))[rows])
        return {"row": np.arange(rows.start, rows.stop), "codes": codes.numpy().astype(np.int32)}
