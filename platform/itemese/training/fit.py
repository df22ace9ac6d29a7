"""One training run in this process, which may be one of several workers."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from itemese.core.artifacts import Counts, Folder
from itemese.core.schema import Split
from itemese.core.stages import Loadable, stored_folder
from itemese.core.tensors import count_parameters
from itemese.evaluation.config import EvaluationConfig
from itemese.methods.base import Method, MethodConfig, Need
from itemese.methods.lookup import method_of
from itemese.training.config import TrainingConfig
from itemese.training.data import TrainingData
from itemese.training.inputs import TrainedModel, build_module, load_inputs
from itemese.training.loop import Hooks, fit
from itemese.training.validation import ValidationData, Validator

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSpec:
    """Everything a training run is defined by; it is sent to workers on other machines.

    Attributes:
        method: The method's settings.
        training: The training section.
        evaluation: The evaluation section, for validation.
        seed: The experiment's.
        sequences: The sequences artifact.
        artifacts: What else the method is built from, by need.
        requests: The requests artifact of each of `validation_tasks`; not read by a refit.
        checkpoints: Where this run's checkpoints lie, the same after a restart.
        start: A trained model to warm-start from, if any.
        refit: None selects the best state on validation events. Otherwise they are trained on
            as well, nothing is selected, and each stage ends after so many steps.
    """

    method: MethodConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    seed: int
    sequences: Folder
    artifacts: Mapping[str, Loadable]
    checkpoints: Folder
    requests: Mapping[str, Folder] = field(default_factory=dict)
    start: TrainedModel | None = None
    refit: tuple[int, ...] | None = None

    @property
    def until(self) -> Split:
        """Newest split whose events are trained on."""
        return Split.TRAIN if self.refit is None else Split.VALIDATION


def fit_spec(spec: TrainingSpec, folder: Folder, hooks: Hooks) -> Counts:
    """Build and train in this process, which may be one of several workers.

    Args:
        spec: What to train.
        folder: Receives the files, from the first worker.
        hooks: Callbacks; validation and checkpoints are set from the spec.

    Returns:
        What `train_model` returns.
    """
    method = method_of(spec.method)
    validator = validator_of(method, spec)
    data = TrainingData.scan(
        spec.sequences,
        spec.training,
        max_history=spec.method.training_window,
        older=spec.method.max_history - spec.method.training_window,
        seed=spec.seed,
        until=spec.until,
        predicts_oldest=method.predicts_oldest,
    )
    data = replace(data, fields=stored_folder(spec.artifacts, Need.FIELDS))
    module = build_untrained(method, spec)
    parameters = count_parameters(module)
    _LOG.info("training %s: %d parameters, %d rows", spec.method.name, parameters, data.num_rows)
    hooks = replace(
        hooks,
        validate=validator,
        checkpoints=spec.checkpoints,
        stop_after=spec.refit,
        falling=validator is not None and validator.falling,
    )
    fitted = fit(method, module, data, spec.training, seed=spec.seed, hooks=hooks)
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


def validator_of(method: Method, spec: TrainingSpec) -> Validator | None:
    """Return what judges the spec's module on validation; None for a refit."""
    if spec.refit is not None:
        return None
    fields = stored_folder(spec.artifacts, Need.FIELDS)
    asked = ValidationData(spec.sequences, spec.requests, fields)
    return Validator.prepare(
        method, asked, training=spec.training, evaluation=spec.evaluation, seed=spec.seed
    )


def build_untrained(method: Method, spec: TrainingSpec) -> nn.Module:
    """Build the untrained module from the spec's artifacts."""
    inputs = load_inputs(method, spec.sequences, spec.artifacts, seed=spec.seed, until=spec.until)
    if spec.start is not None:
        inputs = replace(inputs, warm_start=spec.start.load())
    return build_module(method, inputs)
