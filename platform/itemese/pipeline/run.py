"""One experiment from its raw logs to a bundle: every artifact once, in the order of the story.

``Run(experiment, store).result`` does everything. Each property is an artifact, or another run that
comes before this one; asking for one makes what it is made from, and only that.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from operator import attrgetter
from typing import Any

from itemese.backbones.backbone import INITIAL_WEIGHTS
from itemese.core.artifacts import Artifact, Counts, Folder, Store
from itemese.core.bundle import write_bundle
from itemese.core.config import Config
from itemese.core.errors import ConfigError
from itemese.core.parts import Part, Parts
from itemese.core.progress import bar
from itemese.core.schema import Catalog
from itemese.core.source import source_digest
from itemese.core.stages import StageSpec, Surroundings
from itemese.embeddings.recommended import VERSION as RECOMMENDED_VERSION
from itemese.embeddings.recommended import append_recommender
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.tasks.base import Task
from itemese.methods.base import Method, Need
from itemese.methods.lookup import method_of
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.result import assemble_result, measure_costs, vectors_of
from itemese.pipeline.stages import stage_of, stored
from itemese.pipeline.training_spec import training_spec
from itemese.sequences.requests.config import RequestsConfig
from itemese.sequences.requests.stage import VERSION as REQUESTS_VERSION
from itemese.sequences.requests.stage import build_requests, builder_module
from itemese.training.stage import VERSION as TRAINING_VERSION
from itemese.training.stage import train_model
from itemese.training.validation import validation_tasks

_LOG = logging.getLogger(__name__)

OnMetrics = Callable[[dict[str, float]], None]

EVALUATION_VERSION = 5
PARTS_VERSION = 1


@dataclass(frozen=True)
class Run:
    """An experiment in a store.

    Attributes:
        experiment: What is run.
        store: Where artifacts live.
        on_metrics: Called after each validation of the training with flat metrics.
    """

    experiment: Experiment
    store: Store
    on_metrics: OnMetrics | None = None
    _made: dict[str, Artifact] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def method(self) -> Method:
        """The method of the experiment."""
        return method_of(self.experiment.method)

    @property
    def logs(self) -> Artifact:
        """The raw files as one table of interactions."""
        return self.artifact("logs")

    @property
    def sequences(self) -> Artifact:
        """Histories, split and catalogue."""
        return self.artifact("sequences")

    @cached_property
    def recommender(self) -> "Run | None":
        """The run of the `recommender` section, if the method or its embeddings read it."""
        experiment = self.experiment
        read = Need.RECOMMENDER in self.method.required() or experiment.embeds_recommender
        return Run(experiment.upstream, self.store) if read else None

    @cached_property
    def start(self) -> "Run | None":
        """The run of the `start` section, whose weights the method begins with."""
        experiment = self.experiment
        return Run(experiment.preceding, self.store) if experiment.start is not None else None

    @cached_property
    def parts(self) -> "dict[str, Run]":
        """The runs of the `parts` section, by name."""
        return {n: Run(self.experiment.part(n), self.store) for n in self.experiment.parts}

    @cached_property
    def needed(self) -> dict[str, Artifact]:
        """The artifacts that the method is built from, by need."""
        reads = self.method.required()
        if Need.SEMANTIC_IDS in reads:  # training also reads what the codes are made of
            reads |= {Need.EMBEDDINGS}
        found: dict[str, Artifact] = {}
        for need in sorted(reads):
            if need == Need.RECOMMENDER:
                assert self.recommender is not None, "the experiment was validated"
                found[need] = self.recommender.trained
            elif need == Need.PARTS:
                found[need] = self._gathered({n: run.trained for n, run in self.parts.items()})
            elif need != Need.KNOWLEDGE or self.experiment.knowledge is not None:
                found[need] = self.artifact(need)
        return found

    def requests(self, task: Task, evaluation: EvaluationConfig) -> Artifact:
        """Return what a task asks: the table of requests beside the histories."""
        config = RequestsConfig(
            builder=task.builder,
            targets=evaluation.targets,
            num_drawn=task.num_drawn(evaluation),
        )
        sequences, seed = self.sequences, self.experiment.data_seed
        return self._stage(
            "requests",
            version=REQUESTS_VERSION,
            config=config,
            inputs={"sequences": sequences, "data_seed": str(seed)},
            build=lambda out: build_requests(
                config, sequences.folder, out, seed=seed, logs=self.logs.folder
            ),
            source=source_digest(
                build_requests.__module__, builder_module(config.builder).__name__
            ),
        )

    @cached_property
    def validated(self) -> dict[str, Artifact]:
        """What validation asks during training, or of what was built without any, by task."""
        training = self.experiment.training
        evaluation = self.experiment.evaluation.model_copy(update={"num_offered": training.offered})
        tasks = validation_tasks(self.method, training, evaluation)
        return {name: self.requests(task, evaluation) for name, task in tasks.items()}

    @cached_property
    def trained(self) -> Artifact:
        """The trained method; validation metrics are in ``counts["best"]``."""
        key, spec = training_spec(
            self.experiment,
            self.ancestors,
            self.store.root,
            source=self._training_source,
            requests=self.validated,
        )
        asked = {f"requests/{task}": artifact for task, artifact in self.validated.items()}
        return self._stage(
            "training",
            version=TRAINING_VERSION,
            config=key,
            inputs={**self.ancestors, **asked},
            build=lambda out: train_model(spec, out, self.on_metrics),
            source=self._training_source,
        )

    @cached_property
    def final(self) -> Artifact:
        """What is tested and served: the trained model, or its refit if the protocol asks.

        A refit trains on validation events too, for the steps that validation selected; it can
        select nothing itself, and it never sees a test event.
        """
        if not self.experiment.evaluation.refit:
            return self.trained
        steps = tuple(self.trained.counts["selected_steps"])
        ancestors = self.ancestors
        if self.parts:
            refitted = self._gathered({n: run.final for n, run in self.parts.items()})
            ancestors = {**ancestors, Need.PARTS: refitted}
        key, spec = training_spec(
            self.experiment,
            ancestors,
            self.store.root,
            source=self._training_source,
            refit=steps,
        )
        return self._stage(
            "refit",
            version=TRAINING_VERSION,
            config=key,
            inputs={**ancestors, "training": self.trained},
            build=lambda out: train_model(spec, out),
            source=self._training_source,
        )

    @cached_property
    def evaluated(self) -> Artifact:
        """The evaluation: result.json, report.html and per_user.parquet."""
        return self._stage(
            "evaluation",
            version=EVALUATION_VERSION,
            config=self.experiment,
            inputs=self.asked,
            build=lambda out: assemble_result(self.experiment, self.method, self.asked, out),
            source=source_digest(
                assemble_result.__module__,
                type(self.method).__module__,
                type(self.experiment.task).__module__,
            ),
        )

    @property
    def result(self) -> dict[str, Any]:
        """What ``result.json`` holds."""
        found: dict[str, Any] = self.evaluated.folder.read_json("result.json")
        return found

    def bundle(self, folder: Folder) -> None:
        """Write what Serve loads: config, weights, catalogue, artifacts, metrics, ancestry."""
        method = self.method
        parts, files = stored(method, self.needed), method.file_digests()
        write_bundle(
            folder,
            experiment=dict(self.experiment.values()),
            method_config=self.experiment.method.model_dump(mode="json"),
            state=self.final.folder.read_tensors("model.safetensors"),
            catalog=Catalog.read(self.sequences.folder),
            artifacts={need: part.load() for need, part in parts.items()},
            file_digests={n: d for n, d in files.items() if not n.endswith(INITIAL_WEIGHTS)},
            metrics=self.result["metrics"],
            ancestry=self.store.ancestry(self.evaluated),
        )

    def costs(self) -> dict[str, float]:
        """Return what the trained model costs: parameters, milliseconds a prediction here and now.

        It is no stage, because a time belongs to the machine and the moment.
        """
        return measure_costs(self.experiment, self.method, self.asked)

    @cached_property
    def models(self) -> dict[str, Artifact]:
        """What the method was built from, ``training`` and ``model`` (the same unless refit)."""
        return {**self.ancestors, "training": self.trained, "model": self.final}

    @cached_property
    def asked(self) -> dict[str, Artifact]:
        """The models, and ``requests``: what the experiment's task asks of them."""
        experiment = self.experiment
        return {**self.models, "requests": self.requests(experiment.task, experiment.evaluation)}

    @cached_property
    def ancestors(self) -> dict[str, Artifact]:
        """All artifacts that the method is built from and that its result names."""
        found = {"logs": self.logs, "sequences": self.sequences, **self.needed}
        if self.recommender is not None:
            found["recommender"] = self.recommender.trained
        if self.start is not None:
            found |= {"start": self.start.trained, "start_sequences": self.start.sequences}
        return found

    def artifact(self, name: str) -> Artifact:
        """Return the artifact of a stage of the table, made from the artifacts that it names.

        Args:
            name: A key of `stages.STAGES`, or the dotted path of a module that defines ``STAGE``.

        Raises:
            ConfigError: There is no such stage, or its settings are refused.
        """
        if name not in self._made:
            spec = stage_of(name)
            config = self._settings(name, spec)
            also = spec.also(config) if spec.also is not None else ()
            inputs = {before: self.artifact(before) for before in (*spec.inputs, *also)}
            folders = {before: artifact.folder for before, artifact in inputs.items()}
            around = Surroundings(self.experiment.seed, self.experiment.data_seed, self.store.root)
            extra = {seed: str(getattr(self.experiment, seed)) for seed in spec.seeds}
            if spec.outside is not None:
                extra["outside"] = self.store.once(
                    [name, config and config.digest(), around.data_seed],
                    partial(spec.outside, config, around),
                )
            made = self._stage(
                spec.name,
                version=spec.version,
                config=config,
                inputs={**inputs, **extra},
                build=lambda out: spec.build(config, folders, around, out),
                source=source_digest(*(spec.code or (spec.build.__module__,))),
            )
            self._made[name] = self._recommended(made) if name == Need.EMBEDDINGS else made
        return self._made[name]

    def _settings(self, name: str, spec: StageSpec) -> Config | None:
        """Return the section that decides a stage's output."""
        if spec.settings is not None:
            return spec.settings.parse(self.experiment.artifacts.get(name, {}), f"artifacts.{name}")
        if spec.section is None:
            return None
        found: Config | None = attrgetter(spec.section)(self.experiment)
        if found is None:
            message = (
                f"an experiment must have a `{spec.section}` section for method "
                f"{self.experiment.method.name!r}; got none. Add the section to the recipe."
            )
            raise ConfigError(message)
        if (
            name == Need.EMBEDDINGS
        ):  # text is embedded once for all recommenders, which differ by seed
            found = found.model_copy(update={"recommender": None})
        return found

    def _recommended(self, embeddings: Artifact) -> Artifact:
        """Append the vectors of the recommender to the embeddings if they are a source."""
        wanted, before = self.experiment.embeddings.recommender, self.recommender
        if wanted is None or before is None:
            return embeddings

        def build(out: Folder) -> Mapping[str, Any]:
            vectors, parts = vectors_of(before.experiment, before.method, before.models)
            return append_recommender(wanted, embeddings.folder, vectors, out, parts=parts)

        return self._stage(
            "recommended",
            version=RECOMMENDED_VERSION,
            config=wanted,
            inputs={"embeddings": embeddings, "recommender": before.trained},
            build=build,
            source=source_digest(append_recommender.__module__, vectors_of.__module__),
        )

    def _gathered(self, models: Mapping[str, Artifact]) -> Artifact:
        """Put the parts' trained models into one artifact, with all that they answer with."""
        read = {name: stored(run.method, run.needed) for name, run in self.parts.items()}

        def build(out: Folder) -> Counts:
            made = {
                name: Part(
                    run.experiment.method.model_dump(mode="json"),
                    {need: artifact.load() for need, artifact in read[name].items()},
                    models[name].folder.read_tensors("model.safetensors"),
                )
                for name, run in self.parts.items()
            }
            Parts(made).write_all(out)
            return {"parts": len(made)}

        inputs = {f"{name}/model": model for name, model in models.items()}
        return self._stage(
            "parts",
            version=PARTS_VERSION,
            config=None,
            inputs=inputs,
            build=build,
            source=source_digest(Parts.__module__),
        )

    @property
    def _training_source(self) -> str:
        """Digest of the code that trains the method and of the tasks that validate it."""
        training, evaluation = self.experiment.training, self.experiment.evaluation
        validated = validation_tasks(self.method, training, evaluation)
        tasks = {type(task).__module__ for task in validated.values()}
        return source_digest(train_model.__module__, type(self.method).__module__, *sorted(tasks))

    def _stage(self, name: str, **given: Any) -> Artifact:
        """Build a stage or find it, and log one line if it was built."""
        build = given.pop("build")

        def shown(out: Folder) -> Counts:
            with bar(name):
                found: Counts = build(out)
            return found

        artifact = self.store.stage(name, build=shown, **given)
        if artifact.reused:
            _LOG.debug("%s reused", artifact.key)
        else:
            _LOG.info("%s built in %.1f s", artifact.key, artifact.manifest.seconds)
        for sentence in artifact.counts.get("warnings", []):
            _LOG.warning("%s: %s", name, sentence)
        return artifact
