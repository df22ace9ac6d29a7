"""What the pipeline hands to the training stage: settings, folders and trained models."""

from collections.abc import Mapping
from typing import Any

from itemese.artifacts import Artifact, Folder
from itemese.config import Config, digest_of
from itemese.evaluation.config import EvaluationConfig
from itemese.experiment import Experiment
from itemese.training.config import TrainingConfig
from itemese.training.inputs import TrainedModel
from itemese.training.stage import TrainingSpec


class TrainingKey(Config):
    """What decides a trained model, besides the artifacts it is built from."""

    method: dict[str, Any]
    training: TrainingConfig
    evaluation: EvaluationConfig
    seed: int


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
