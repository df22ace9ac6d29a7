"""What the pipeline hands to the training stage: settings, folders and trained models."""

from collections.abc import Mapping
from typing import Any

from itemese.core.artifacts import Artifact, Folder
from itemese.core.config import Config, digest_of
from itemese.core.stages import Loadable, Stored
from itemese.evaluation.config import EvaluationConfig
from itemese.methods.base import Need
from itemese.methods.lookup import method_of
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.stages import reader_for
from itemese.training.config import TrainingConfig
from itemese.training.fit import TrainingSpec
from itemese.training.inputs import TrainedModel

_OF_THE_TEST = {
    "refit": False,
    "task": None,
    "max_users": None,
    "num_offered": 20,
    "targets": "all",
}
"""Settings of the evaluation that decide no trained model, or only through its requests."""


class TrainingKey(Config):
    """What decides a trained model, besides the artifacts it is built from.

    Attributes:
        method: Its settings.
        training: Settings of the training.
        evaluation: Cutoffs and batch size of the validations.
        seed: The experiment's.
        files: `Method.file_digests`.
        refit: As in `TrainingSpec`.
    """

    method: dict[str, Any]
    training: TrainingConfig
    evaluation: EvaluationConfig
    seed: int
    files: dict[str, str]
    refit: tuple[int, ...] | None = None


def training_spec(
    experiment: Experiment,
    artifacts: Mapping[str, Artifact],
    root: Folder,
    *,
    source: str,
    requests: Mapping[str, Artifact] | None = None,
    refit: tuple[int, ...] | None = None,
) -> tuple[TrainingKey, TrainingSpec]:
    """Gather what a training worker needs; all of it travels to other machines.

    Args:
        experiment: What is trained.
        artifacts: What it is built from: `Run.ancestors`.
        root: Of the storage, where checkpoints lie.
        source: Digest of the code that trains; other code does not go on from its checkpoints.
        requests: What validation asks, by task; a refit asks nothing.
        refit: As in `TrainingSpec`.

    Returns:
        The settings that decide the model, and the whole.
    """
    method = method_of(experiment.method)
    key = TrainingKey(
        method=experiment.method.model_dump(mode="json"),
        training=experiment.training,
        evaluation=experiment.evaluation.model_copy(update=_OF_THE_TEST),
        seed=experiment.seed,
        files=method.file_digests(),
        refit=refit,
    )
    folders = {name: artifact.folder for name, artifact in artifacts.items()}
    read = method.required() | (
        {Need.EMBEDDINGS} if Need.SEMANTIC_IDS in method.required() else set()
    )
    needed: dict[str, Loadable] = {
        need: Stored(folders[need], reader_for(need))
        for need in read & folders.keys() - {Need.RECOMMENDER}
    }
    seed, start = experiment.seed, None
    if Need.RECOMMENDER in read:
        before = experiment.upstream.method
        model = TrainedModel(before, folders["sequences"], folders["recommender"], seed)
        needed[Need.RECOMMENDER] = model
    if "start" in folders:
        before = experiment.preceding.method
        start = TrainedModel(before, folders["start_sequences"], folders["start"], seed)
    asked = requests or {}
    made_from = [*artifacts.values(), *asked.values()]
    upstream = digest_of([key.digest(), source, *(artifact.key for artifact in made_from)])
    spec = TrainingSpec(
        method=experiment.method,
        training=experiment.training,
        evaluation=experiment.evaluation,
        requests={task: artifact.folder for task, artifact in asked.items()},
        seed=seed,
        sequences=folders["sequences"],
        artifacts=needed,
        checkpoints=root.child(f"checkpoints/{upstream}"),
        start=start,
        refit=refit,
    )
    return key, spec
