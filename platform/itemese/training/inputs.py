"""Read the artifacts that a method needs, and nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import torch
from torch import nn

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError
from itemese.core.randomness import derive_seed
from itemese.core.schema import Catalog, Histories, Split
from itemese.core.stages import Loadable, stored_folder
from itemese.core.texts import Texts
from itemese.methods.base import Inputs, Method, MethodConfig, Need
from itemese.methods.lookup import method_of


@dataclass(frozen=True)
class TrainedModel:
    """A model that was trained before the method that reads it or starts from it.

    Attributes:
        method: Its settings.
        sequences: The sequences artifact that it was trained on.
        folder: Its training artifact.
        seed: The experiment's.
    """

    method: MethodConfig
    sequences: Folder
    folder: Folder
    seed: int

    def load(self) -> nn.Module:
        """Return it, frozen and in evaluation mode; no history is read."""
        inputs = Inputs(Catalog.read(self.sequences), lambda: iter(()), seed=self.seed)
        state = self.folder.read_tensors("model.safetensors")
        return method_of(self.method).restore(inputs, state).eval().requires_grad_(False)


def load_inputs(
    method: Method,
    sequences: Folder,
    artifacts: Mapping[str, Loadable] | None = None,
    *,
    seed: int = 0,
    until: Split = Split.TRAIN,
) -> Inputs:
    """Read what `method` may be built from; events of validation and test are left out.

    Args:
        method: What it requires must be among the artifacts, but for `Need.KNOWLEDGE`, which a
            recipe may leave out.
        sequences: The sequences artifact.
        artifacts: By need; all of them are read.
        seed: The experiment's.
        until: Newest split whose events count as training events.

    Raises:
        ConfigError: A needed artifact was not given.
        DataError: Its rows do not fit the catalogue.
    """
    for need in sorted(method.required() - {*(artifacts or {}), Need.KNOWLEDGE}):
        message = (
            f"`{need}` must be given for method {method.config.name!r}; got nothing. "
            f"Add the section to the recipe."
        )
        raise ConfigError(message)

    fields = stored_folder(artifacts or {}, Need.FIELDS)

    def train() -> Iterator[Histories]:
        for block in Histories.stream(sequences, fields=fields):
            yield block.up_to(until)

    catalog = Catalog.read(sequences)
    found = {need: artifact.load() for need, artifact in (artifacts or {}).items()}
    texts = found.get(Need.KNOWLEDGE) or {}
    if "item" in texts:
        catalog = _with_texts(catalog, texts["item"])
    for need in (Need.EMBEDDINGS, Need.SEMANTIC_IDS, Need.FIELDS):
        if need in found:
            found[need].validate(catalog.num_items)
    return Inputs(catalog, train, seed=seed, artifacts=found)


def _with_texts(catalog: Catalog, texts: Texts) -> Catalog:
    """Return the catalogue with a column for each text of its items.

    Raises:
        DataError: They are those of another catalogue.
    """
    texts.validate(catalog.item_ids)
    table = catalog.table
    for name, column in texts.text.items():
        table = table.append_column(name, pa.array(column, pa.string()))
    return replace(catalog, table=table)


def build_module(method: Method, inputs: Inputs) -> nn.Module:
    """Build the module: the same inputs and seed give the same bits, whatever ran before."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(inputs.seed, "training/module"))
        return method.build(inputs)
