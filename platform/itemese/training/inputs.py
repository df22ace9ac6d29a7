"""Read the artifacts that a method declares it needs, and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.core.randomness import derive_seed
from itemese.core.schema import Catalog, Histories, Split
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.methods.base import Inputs, Method, MethodConfig, Need
from itemese.methods.lookup import method_of


@dataclass(frozen=True)
class TrainedModel:
    """A model that was trained before the method that reads it or goes on from it.

    Attributes:
        method: Its settings.
        sequences: The sequences artifact that it was trained on.
        folder: Its training artifact.
    """

    method: MethodConfig
    sequences: Folder
    folder: Folder

    def load(self, seed: int) -> nn.Module:
        """Return it, frozen and in evaluation mode; no history is read."""
        inputs = Inputs(Catalog.read(self.sequences), lambda: iter(()), seed=seed)
        state = self.folder.read_tensors("model.safetensors")
        return method_of(self.method).restore(inputs, state).eval().requires_grad_(False)


def load_inputs(
    method: Method,
    *,
    sequences: Folder,
    embeddings: Folder | None = None,
    codebooks: Folder | None = None,
    recommender: TrainedModel | None = None,
    start: TrainedModel | None = None,
    knowledge: Folder | None = None,
    seed: int = 0,
    until: Split = Split.TRAIN,
) -> Inputs:
    """Read what `method` may be built from; events of validation and test are left out.

    Args:
        method: What it `reads` decides.
        sequences: The sequences artifact.
        embeddings: The embeddings artifact, required for `Need.EMBEDDINGS`; read as well for
            `Need.SEMANTIC_IDS`, which are made of it, if it is given.
        codebooks: The codebooks artifact, required for `Need.SEMANTIC_IDS`.
        recommender: Handed, frozen, to a method with `Need.RECOMMENDER`; a module that is only
            restored needs none.
        start: Handed to a method that goes on from it.
        knowledge: The knowledge artifact, whose texts become columns of the catalogue.
        seed: The experiment's.
        until: Newest split whose events count as training events.

    Raises:
        ConfigError: A needed artifact was not given.
        DataError: Its rows do not fit the catalogue.
    """
    catalog = Catalog.read(sequences)
    if knowledge is not None:
        catalog = _with_texts(catalog, knowledge)

    def train() -> Iterator[Histories]:
        for block in Histories.stream(sequences):
            yield block.up_to(until)

    vectors = ids = None
    needs = method.reads()
    coded = Need.SEMANTIC_IDS in needs and embeddings is not None
    if Need.EMBEDDINGS in needs or coded:
        vectors = Embeddings.read(_given(embeddings, "embeddings", method))
        vectors.validate(catalog.num_items)
    if Need.SEMANTIC_IDS in needs:
        ids = SemanticIds.read(_given(codebooks, "codebooks", method))
        ids.validate(catalog.num_items)
    wanted = recommender if Need.RECOMMENDER in needs else None
    return Inputs(
        catalog,
        train,
        seed=seed,
        embeddings=vectors,
        semantic_ids=ids,
        recommender=None if wanted is None else wanted.load(seed),
        start=None if start is None else start.load(seed),
    )


def _with_texts(catalog: Catalog, knowledge: Folder) -> Catalog:
    """Return the catalogue with the texts that were written of its items.

    Raises:
        DataError: They are those of another catalogue.
    """
    texts = knowledge.read_table("knowledge.parquet")
    if texts["item_id"].to_pylist() != catalog.item_ids:
        message = (
            f"`knowledge` must hold a row for each of {catalog.num_items} items in their order; "
            f"got {texts.num_rows} of another catalogue. Write this catalogue's."
        )
        raise DataError(message)
    table = catalog.table
    for name in texts.column_names[1:]:
        table = table.append_column(name, texts[name])
    return replace(catalog, table=table)


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
