"""Checkpoints on any filesystem: tensors as safetensors, the rest as JSON, manifest last.

A checkpoint is a folder of its own with the model, the optimiser, the best model so far and the
run's position. Random numbers are derived from (seed, epoch, place of the micro-batch), so the
position is their state too, for any number of workers. A folder without a manifest, or one whose
files cannot be read, does not count; the one before it does.
"""

import logging
import uuid
from dataclasses import dataclass

import pyarrow.fs as pafs
import torch
from torch import Tensor, nn

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError
from itemese.training.progress import Progress
from itemese.training.sharding import gathered, shard_like

_LOG = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints kept of a run: the newest and, in case that is incomplete, the one before."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to resume with bit-equal results.

    Attributes:
        progress: Position, record and early-stopping state.
        model: The module's tensors.
        best: Tensors of the best module of the stage; None before the first validation.
        optimizer: The optimiser's tensors by ``<parameter>/<name>``.
    """

    progress: Progress
    model: dict[str, Tensor]
    best: dict[str, Tensor] | None
    optimizer: dict[str, Tensor]


def save_checkpoint(folder: Folder, checkpoint: Checkpoint, *, kept: int | None = KEPT) -> Folder:
    """Write a checkpoint below `folder`, then drop those that are too old.

    Args:
        folder: Holds all checkpoints of the run.
        checkpoint: What to write.
        kept: Newest checkpoints to keep; None keeps all: the caller removes them.

    Raises:
        ArtifactError: The storage cannot be written; what was half written is removed.
    """
    place = folder.child(f"step-{checkpoint.progress.step:09d}-{uuid.uuid4().hex[:6]}")
    try:
        place.write_tensors("model.safetensors", checkpoint.model)
        place.write_tensors("optimizer.safetensors", checkpoint.optimizer)
        if checkpoint.best is not None:
            place.write_tensors("best.safetensors", checkpoint.best)
        place.write_json("progress.json", checkpoint.progress.to_json())
        place.write_json("manifest.json", {"has_best": checkpoint.best is not None})
    except BaseException:
        _delete(place)
        raise
    if kept is not None:
        for old in checkpoint_folders(folder)[:-kept]:
            _delete(old)
    return place


def latest_checkpoint(folder: Folder) -> Checkpoint | None:
    """Return the newest whole checkpoint below `folder`, or None."""
    for place in reversed(checkpoint_folders(folder)):
        if not place.exists("manifest.json"):
            continue
        try:
            return read_checkpoint(place)
        except ArtifactError as error:
            _LOG.warning("checkpoint %s is incomplete and was skipped: %s", place.uri, error)
    return None


def read_checkpoint(place: Folder) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        ArtifactError: A file is missing or incomplete.
    """
    has_best = place.read_json("manifest.json")["has_best"]
    return Checkpoint(
        Progress.from_json(place.read_json("progress.json")),
        place.read_tensors("model.safetensors"),
        place.read_tensors("best.safetensors") if has_best else None,
        place.read_tensors("optimizer.safetensors"),
    )


def checkpoint_folders(folder: Folder) -> list[Folder]:
    """Return the checkpoint folders below `folder`, oldest first, whole or not."""
    filesystem, path = folder.filesystem()
    selector = pafs.FileSelector(path, recursive=False, allow_not_found=True)
    found = filesystem.get_file_info(selector)
    names = sorted(i.base_name for i in found if i.type == pafs.FileType.Directory)
    return [folder.child(name) for name in names if name.startswith("step-")]


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the module's tensors on the CPU; tied ones are copied twice."""
    return {name: t.detach().cpu().clone() for name, t in module.state_dict().items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's tensors by ``<number of the parameter>/<name>``.

    If they are sharded, every worker must call it; all gather in one order, which differs from the
    order in a file.
    """
    state = optimizer.state_dict()["state"]
    return {
        f"{number}/{name}": gathered(tensor)
        for number, held in sorted(state.items())
        for name, tensor in sorted(held.items())
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition("/")
        part = shard_like(tensor, parameters[int(number)])
        state.setdefault(int(number), {})[name] = part
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _delete(place: Folder) -> None:
    """Remove a checkpoint; a failure to do so must not stop the run or hide another error."""
    try:
        place.delete()
    except (OSError, ArtifactError):
        _LOG.warning("checkpoint %s could not be removed", place.uri)
