"""The training stage: from artifacts to ``model.safetensors``."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from itemese.artifacts import Counts, Folder
from itemese.evaluation.config import EvaluationConfig
from itemese.methods.base import Method, MethodConfig, count_parameters, method_of
from itemese.schema import Split
from itemese.training.checkpoints import snapshot
from itemese.training.config import TrainingConfig
from itemese.training.data import TrainingData
from itemese.training.inputs import TrainedModel, build_module, load_inputs
from itemese.training.loop import Hooks, fit
from itemese.training.validation import Validator

VERSION = 3
"""Raise it when this room's code changes what it writes."""

_LOG = logging.getLogger(__name__)

OnMetrics = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class TrainingSpec:
    """All that a training run is; it travels to workers on other machines.

    Attributes:
        method: The method's settings.
        training: The training section.
        evaluation: The evaluation section, for validation.
        seed: The experiment's.
        sequences: The sequences artifact.
        embeddings: The embeddings artifact, if the method needs it.
        codebooks: The codebooks artifact, if the method needs it.
        checkpoints: Where this run's checkpoints lie, the same after a restart.
        recommender: A trained recommender, if the method needs it.
        knowledge: The knowledge artifact, if the method reads it and the recipe asks for it.
        start: What the method goes on from, if anything.
        refit: None selects the best state on validation events. Otherwise they are trained on
            as well, nothing is selected, and each stage ends after so many steps.
    """

    method: MethodConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    seed: int
    sequences: Folder
    embeddings: Folder | None
    codebooks: Folder | None
    checkpoints: Folder
    recommender: TrainedModel | None = None
    start: TrainedModel | None = None
    knowledge: Folder | None = None
    refit: tuple[int, ...] | None = None

    @property
    def until(self) -> Split:
        """Newest split whose events are trained on."""
        return Split.TRAIN if self.refit is None else Split.VALIDATION


def train_model(spec: TrainingSpec, folder: Folder, on_metrics: OnMetrics | None = None) -> Counts:
    """Train the method and write ``model.safetensors`` and ``learning_curve.json``.

    A training-free method is built and saved. A run that was killed goes on from its newest
    checkpoint; checkpoints are removed when the model is written.

    Args:
        spec: What to train.
        folder: Receives the files.
        on_metrics: Called after each validation with flat metrics (``step``, ``epoch``,
            ``stage``, ``train/loss``, ``val/ndcg@10``, ...). A run that goes on in this process
            tells of the validations before its checkpoint first.

    Returns:
        parameters, steps, epochs, seconds, best (validation metrics), tokens_per_second and
        step_seconds (median).

    Raises:
        ConfigError: Settings that cannot be carried out here.
        DataError: Nothing to train on or to validate with.
        ArtifactError: The storage cannot be written.
        TrainingError: A loss term is not finite, or workers failed too often.
    """
    method = method_of(spec.method)
    if not method.stages():
        counts = _save_built(method, spec, folder)
    elif spec.training.num_workers == 0:
        counts = fit_spec(spec, folder, Hooks(on_metrics=on_metrics, from_the_start=True))
    else:
        # Ray is imported only where it is asked for: the loop itself needs none.
        from itemese.training.distributed import fit_on_ray

        counts = fit_on_ray(spec, folder, on_metrics)
    spec.checkpoints.delete()
    return counts


def fit_spec(spec: TrainingSpec, folder: Folder, hooks: Hooks) -> Counts:
    """Build and train in this process, which may be one of several workers.

    Args:
        spec: What to train.
        folder: Receives the files, from the first worker.
        hooks: Who is told; validation and checkpoints are those of the spec.

    Returns:
        What `train_model` returns.
    """
    method = method_of(spec.method)
    validator = None
    if spec.refit is None:
        validator = Validator.prepare(
            method,
            sequences=spec.sequences,
            training=spec.training,
            evaluation=spec.evaluation,
            seed=spec.seed,
        )
    data = TrainingData.scan(
        spec.sequences,
        spec.training,
        max_history=spec.method.max_history,
        seed=spec.seed,
        until=spec.until,
    )
    module = _build(method, spec)
    parameters = count_parameters(module)
    _LOG.info("training %s: %d parameters, %d users", spec.method.name, parameters, data.num_users)
    whole = replace(hooks, validate=validator, checkpoints=spec.checkpoints, stops=spec.refit)
    fitted = fit(method, module, data, spec.training, seed=spec.seed, hooks=whole)
    if fitted.is_first:
        folder.write_tensors("model.safetensors", fitted.state)
        folder.write_json("learning_curve.json", fitted.curve)
    return {
        "parameters": parameters,
        "steps": fitted.steps,
        "epochs": fitted.epochs,
        "seconds": fitted.seconds,
        "best": fitted.best,
        "selected_steps": list(fitted.selected),
        "tokens_per_second": fitted.tokens_per_second,
        "step_seconds": fitted.step_seconds,
    }


def load_module(
    method: Method, folder: Folder, artifacts: Mapping[str, Folder | None], *, seed: int = 0
) -> nn.Module:
    """Return the trained module, on the CPU and in evaluation mode.

    Args:
        method: The one that was trained.
        folder: What `train_model` filled.
        artifacts: ``sequences`` and, if needed, ``embeddings`` and ``codebooks``.
        seed: The experiment's.
    """
    sequences = artifacts["sequences"]
    assert sequences is not None, "a module cannot be loaded without its sequences artifact"
    inputs = load_inputs(
        method,
        sequences=sequences,
        embeddings=artifacts.get("embeddings"),
        codebooks=artifacts.get("codebooks"),
        seed=seed,
    )
    return method.restore(inputs, folder.read_tensors("model.safetensors")).eval()


def _save_built(method: Method, spec: TrainingSpec, folder: Folder) -> Counts:
    """Save a training-free method's module."""
    started = time.monotonic()
    module = _build(method, spec)
    folder.write_tensors("model.safetensors", snapshot(module))
    folder.write_json("learning_curve.json", [])
    return {
        "parameters": count_parameters(module),
        "steps": 0,
        "epochs": 0,
        "seconds": round(time.monotonic() - started, 3),
        "best": {},
        "selected_steps": [],
        "tokens_per_second": 0.0,
        "step_seconds": 0.0,
    }


def _build(method: Method, spec: TrainingSpec) -> nn.Module:
    """Build the untrained module from the spec's artifacts."""
    inputs = load_inputs(
        method,
        sequences=spec.sequences,
        embeddings=spec.embeddings,
        codebooks=spec.codebooks,
        recommender=spec.recommender,
        knowledge=spec.knowledge,
        start=spec.start,
        seed=spec.seed,
        until=spec.until,
    )
    return build_module(method, inputs)
