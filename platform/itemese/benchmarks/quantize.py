"""What each quantizer costs and gives: 12,101 items of 384 numbers (Amazon Beauty's), 4 x 256.

The vectors are those of a finished embeddings artifact if the storage holds one of that size
(``jobs/prepare.py jobs/recipes/tiger_beauty_paper.yaml`` makes it), else simulated ones; the
names of the rows say which. All kinds are fitted in one process on one thread, and seconds are
those of the processor, so that other work on the machine does not count.

Shapes: I items, D vector size.
"""

import time
from typing import get_args

import numpy as np
import torch
from pyarrow.fs import FileSelector, FileType
from torch import Tensor

from itemese.benchmarks.rows import Row, figure
from itemese.codebooks.collisions import with_suffix
from itemese.codebooks.config import CodebooksConfig, QuantizerKind
from itemese.codebooks.health.report import LEAST_FIRST_USE, MOST_COLLISIONS, health_report
from itemese.codebooks.kinds import QUANTIZERS
from itemese.codebooks.product_quantizer import load_faiss
from itemese.core.artifacts import Artifact, Folder, Store
from itemese.core.randomness import numpy_generator
from itemese.core.vectors import Embeddings

NUM_ITEMS = 12_101
DIM = 384
NUM_CODEBOOKS = 4
CODEBOOK_SIZE = 256

SECONDS_BAR = {"residual_kmeans": 10.0, "rq_vae": 40.0}
"""Seconds of one core that a fit may take."""


def run(storage: str, *, seed: int = 0) -> list[Row]:
    """Fit every kind once and measure it.

    Args:
        storage: Where to look for an embeddings artifact.
        seed: Of the fits and of simulated vectors.

    Returns:
        Rows ``{"name", "value", "unit", "bar", "holds"}``, named
        ``quantize/<vectors>/<kind>/<what>``. Collisions are those before disambiguation, the error
        is a share of the variance. The bars on collisions and use are meant for real vectors.
    """
    found = _embedded(Store(storage))
    source, vectors = found or ("simulated", simulated_vectors(seed))
    faiss = load_faiss()
    threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        rows = []
        for kind in get_args(QuantizerKind):
            rows += _measured(kind, vectors, f"quantize/{source}/{kind}", seed, real=bool(found))
        return rows
    finally:
        torch.set_num_threads(threads[0])
        faiss.omp_set_num_threads(threads[1])


def simulated_vectors(seed: int, num_items: int = NUM_ITEMS, dim: int = DIM) -> Tensor:
    """Return unit vectors ``[I, D] float32`` in groups within groups, as item text makes them."""
    rng = numpy_generator(seed, "codebooks/benchmark")
    vectors = np.zeros((num_items, dim), dtype=np.float32)
    for groups, spread in ((40, 1.0), (400, 0.7), (4_000, 0.5), (num_items, 0.4)):
        centres = spread * rng.standard_normal((groups, dim), dtype=np.float32)
        vectors += centres[rng.integers(groups, size=num_items)]
    return torch.nn.functional.normalize(torch.from_numpy(vectors), dim=1)


def _measured(
    kind: QuantizerKind, vectors: Tensor, name: str, seed: int, *, real: bool
) -> list[Row]:
    """Fit one kind and return its rows."""
    number = NUM_CODEBOOKS
    if kind == "balanced_tree":  # as deep as there is something to split
        number = next(d for d in range(1, number + 1) if CODEBOOK_SIZE**d >= len(vectors))
    config = CodebooksConfig(kind=kind, num_codebooks=number, codebook_size=CODEBOOK_SIZE)
    quantizer = QUANTIZERS[kind](config)
    started = time.process_time()
    quantizer.fit(vectors, seed=seed)
    fitted = time.process_time()
    codes = quantizer.codes(vectors)
    coded = time.process_time()
    health = health_report(
        quantizer, vectors, codes, with_suffix(codes, np.arange(len(codes.codes)))
    )
    judged = real and kind == "rq_vae"
    most, least = (MOST_COLLISIONS, LEAST_FIRST_USE) if judged else (None, None)
    use, collisions = health["levels"][0]["use"], health["collision_rate_before"]
    return [
        figure(f"{name}/fit", fitted - started, "s", most=SECONDS_BAR.get(kind)),
        figure(f"{name}/encode", coded - fitted, "s"),
        figure(f"{name}/collisions", 100 * collisions, "%", most=most and 100 * most),
        figure(f"{name}/level_1_use", 100 * use, "%", least=least and 100 * least),
        figure(f"{name}/error", 100 * health["error"], "%"),
    ]


def _embedded(store: Store) -> tuple[str, Tensor] | None:
    """Return the name and the vectors of the first finished artifact of this size, if any."""
    for digest in _keys(store.root.child("embeddings")):
        artifact = store.find(f"embeddings/{digest}")
        if artifact and (artifact.counts["num_items"], artifact.counts["dim"]) == (NUM_ITEMS, DIM):
            vectors = torch.from_numpy(Embeddings.read(artifact.folder).vectors)
            return f"{_data_of(artifact, store)}-{digest[:6]}", vectors
    return None


def _keys(folder: Folder) -> list[str]:
    """Return the names of the folders directly inside, sorted."""
    filesystem, path = folder.filesystem()
    inside = filesystem.get_file_info(FileSelector(path, recursive=False, allow_not_found=True))
    return sorted(info.base_name for info in inside if info.type == FileType.Directory)


def _data_of(artifact: Artifact, store: Store) -> str:
    """Return what the artifact's logs are called, for example ``amazon_beauty``."""
    for key, manifest in store.ancestry(artifact).items():
        if key.startswith("logs/"):
            return str(manifest["config"].get("path") or "logs").rpartition("/")[2]
    return "embeddings"
