"""The training stage: from artifacts to ``model.safetensors``."""

import logging
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from itemese.core.artifacts import Counts, Folder
from itemese.core.schema import Catalog
from itemese.core.stages import Loadable
from itemese.core.tensors import count_parameters
from itemese.evaluation.model import evaluating
from itemese.methods.base import Inputs, Method
from itemese.methods.lookup import method_of
from itemese.training.checkpoints import snapshot
from itemese.training.fit import TrainingSpec, build_untrained, fit_spec, validator_of
from itemese.training.loop import Hooks

VERSION = 4
"""Raise it when a change of this package changes the trained model."""

_LOG = logging.getLogger(__name__)

OnMetrics = Callable[[dict[str, float]], None]


def train_model(spec: TrainingSpec, folder: Folder, on_metrics: OnMetrics | None = None) -> Counts:
    """Train the method and write ``model.safetensors`` and ``learning_curve.json``.

    A training-free method is built, saved and validated once. A run that was killed resumes from
    its newest checkpoint; checkpoints are removed when the model is written.

    Args:
        spec: What to train.
        folder: Receives the files.
        on_metrics: Called after each validation with flat metrics (``step``, ``epoch``,
            ``stage``, ``train/loss``, ``val/ndcg@10``, ...). A run that resumes in this process
            first repeats the validations before its checkpoint.

    Returns:
        parameters, steps, epochs, seconds, best (validation metrics), tokens_per_second and
        step_seconds (median).

    Raises:
        ConfigError: Settings that this machine or cluster cannot run.
        DataError: Nothing to train on or to validate with.
        ArtifactError: The storage cannot be written.
        TrainingError: A loss term is not finite, or workers failed too often.
    """
    method = method_of(spec.method)
    if not method.stages():
        counts = _save_built(method, spec, folder, on_metrics)
    elif spec.training.num_workers == 0:
        counts = fit_spec(spec, folder, Hooks(on_metrics=on_metrics, replays=True))
    else:
        # Ray is imported only where it is asked for: the loop itself needs none.
        from itemese.training.distributed import fit_on_ray

        counts = fit_on_ray(spec, folder, on_metrics)
    spec.checkpoints.delete()
    return counts


def load_module(
    method: Method,
    folder: Folder,
    sequences: Folder,
    artifacts: Mapping[str, Loadable] | None = None,
    *,
    seed: int = 0,
) -> nn.Module:
    """Return the trained module, on the CPU and in evaluation mode.

    Args:
        method: The one that was trained.
        folder: What `train_model` filled.
        sequences: The sequences artifact.
        artifacts: What it answers with, by need.
        seed: The experiment's.
    """
    catalog = Catalog.read(sequences)
    found = {need: artifact.load() for need, artifact in (artifacts or {}).items()}
    inputs = Inputs(catalog, lambda: iter(()), seed=seed, artifacts=found)
    return method.restore(inputs, folder.read_tensors("model.safetensors")).eval()


def _save_built(
    method: Method, spec: TrainingSpec, folder: Folder, on_metrics: OnMetrics | None
) -> Counts:
    """Save and validate a training-free method's module."""
    started = time.monotonic()
    module = build_untrained(method, spec)
    seconds = round(time.monotonic() - started, 3)
    folder.write_tensors("model.safetensors", snapshot(module))
    folder.write_json("learning_curve.json", [])
    best: dict[str, float] = {}
    validator = validator_of(method, spec)
    if validator is not None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with evaluating(module.to(device)):
            sums = validator(module, device, rank=0, workers=1)
        best = {name: value / count for name, (value, count) in sums.items() if count}
    if best and on_metrics is not None:
        on_metrics({"step": 0, "epoch": 0, "stage": 0, **best})
    return {
        "parameters": count_parameters(module),
        "steps": 0,
        "epochs": 0,
        "seconds": seconds,
        "best": best,
        "selected_steps": [],
        "tokens_per_second": 0.0,
        "step_seconds": 0.0,
    }
