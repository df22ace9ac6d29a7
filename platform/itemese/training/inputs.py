"""Read the artifacts that a method declares it needs, and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from itemese.artifacts import Folder
from itemese.errors import ConfigError
from itemese.methods.base import Inputs, Method, MethodConfig, Need, method_of
from itemese.randomness import derive_seed
from itemese.schema import Catalog, Embeddings, Histories, SemanticIds, Split


@dataclass(frozen=True)
class TrainedRecommender:
    """A recommender that was trained before the method that reads it.

    Attributes:
        method: Its settings.
        folder: Its training artifact.
    """

    method: MethodConfig
    folder: Folder


def load_inputs(
    method: Method,
    *,
    sequences: Folder,
    embeddings: Folder | None = None,
    codebooks: Folder | None = None,
    recommender: TrainedRecommender | None = None,
    seed: int = 0,
    until: Split = Split.TRAIN,
) -> Inputs:
    """Read what `method` may be built from; events of validation and test are left out.

    Args:
        method: Its `needs` decide what is read.
        sequences: The sequences artifact.
        embeddings: The embeddings artifact, required for `Need.EMBEDDINGS`; read as well for
            `Need.SEMANTIC_IDS`, which are made of it, if it is given.
        codebooks: The codebooks artifact, required for `Need.SEMANTIC_IDS`.
        recommender: Handed, frozen, to a method with `Need.RECOMMENDER`; a module that is only
            restored needs none.
        seed: The experiment's.
        until: Newest split whose events count as training events.

    Raises:
        ConfigError: A needed artifact was not given.
        DataError: Its rows do not fit the catalogue.
    """
    catalog = Catalog.read(sequences)

    def train() -> Iterator[Histories]:
        for block in Histories.stream(sequences):
            yield block.up_to(until)

    vectors = ids = None
    coded = Need.SEMANTIC_IDS in method.needs and embeddings is not None
    if Need.EMBEDDINGS in method.needs or coded:
        vectors = Embeddings.read(_given(embeddings, "embeddings", method))
        vectors.validate(catalog.num_items)
    if Need.SEMANTIC_IDS in method.needs:
        ids = SemanticIds.read(_given(codebooks, "codebooks", method))
        ids.validate(catalog.num_items)
    source = None
    if Need.RECOMMENDER in method.needs and recommender is not None:
        upstream = method_of(recommender.method)
        tensors = recommender.folder.read_tensors("model.safetensors")
        given = Inputs(catalog, train, seed=seed)
        source = upstream.restore(given, tensors).eval().requires_grad_(False)
    return Inputs(
        catalog, train, seed=seed, embeddings=vectors, semantic_ids=ids, recommender=source
    )


def build_module(method: Method, inputs: Inputs) -> nn.Module:
    """Build the module: the same inputs and seed give the same bits, whatever ran before."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(inputs.seed, "training/module"))
        return method.build(inputs)


def _given(folder: Folder | None, section: str, method: Method) -> Folder:
    """Return the folder of an artifact that the method cannot do without."""
    if folder is None:
        message = (
            f"`{section}` must be given for method {method.config.name!r}; got nothing. "
            f"Add the section to the recipe."
        )
        raise ConfigError(message)
    return folder
