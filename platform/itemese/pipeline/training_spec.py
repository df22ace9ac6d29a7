"""What the pipeline hands to the training stage: settings, folders and trained models."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from itemese.core.artifacts import Artifact, Folder
from itemese.core.config import Config, digest_of
from itemese.evaluation.config import EvaluationConfig
from itemese.methods.lookup import method_of
from itemese.pipeline.experiment import Experiment
from itemese.training.config import TrainingConfig
from itemese.training.fit import TrainingSpec
from itemese.training.inputs import TrainedModel


class TrainingKey(Config):
    """What decides a trained model, besides the artifacts it is built from.

    Attributes:
        method: Its settings.
        training: Settings of the training.
        evaluation: Cutoffs and batch size of the validations.
        seed: The experiment's.
        files: `Method.file_digests`; no part of the key of a method that names no files.
    """

    method: dict[str, Any]
    training: TrainingConfig
    evaluation: EvaluationConfig
    seed: int
    files: dict[str, str] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return values if self.files else {n: v for n, v in values.items() if n != "files"}


def training_spec(
    experiment: Experiment,
    artifacts: Mapping[str, Artifact],
    root: Folder,
    *,
    refit: tuple[int, ...] | None = None,
) -> tuple[TrainingKey, TrainingSpec]:
    """Gather what a training worker needs; all of it travels to other machines.

    Args:
        experiment: What is trained.
        artifacts: What it is trained on, by the fields of `pipeline.Prepared`.
        root: Of the storage, where checkpoints lie.
        refit: As in `TrainingSpec`.

    Returns:
        The settings that decide the model, and the whole.
    """
    key = TrainingKey(
        method=experiment.method.model_dump(mode="json"),
        training=experiment.training,
        evaluation=experiment.evaluation.model_copy(update={"refit": False}),
        seed=experiment.seed,
        files=method_of(experiment.method).file_digests(),
    )
    folders = {name: artifact.folder for name, artifact in artifacts.items()}
    recommender = start = None
    if "recommender" in folders:
        method = experiment.upstream.method
        recommender = TrainedModel(method, folders["sequences"], folders["recommender"])
    if "start" in folders:
        method = experiment.preceding.method
        start = TrainedModel(method, folders["start_sequences"], folders["start"])
    upstream = digest_of([key.digest(), *(a.key for a in artifacts.values()), refit])
    spec = TrainingSpec(
        method=experiment.method,
        training=experiment.training,
        evaluation=experiment.evaluation,
        seed=experiment.seed,
        sequences=folders["sequences"],
        embeddings=folders.get("embeddings"),
        codebooks=folders.get("codebooks"),
        knowledge=folders.get("knowledge"),
        checkpoints=root.child(f"checkpoints/{upstream}"),
        recommender=recommender,
        start=start,
        refit=refit,
    )
    return key, spec
