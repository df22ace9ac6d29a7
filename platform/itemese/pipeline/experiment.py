"""The whole typed configuration of one experiment."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from itemese.codebooks.config import CodebooksConfig
from itemese.core.config import Config, flat_paths, read_recipe, with_overrides, with_values
from itemese.embeddings.config import EmbeddingsConfig, TextModelConfig, UserEmbeddingsConfig
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.tasks.base import Task
from itemese.evaluation.tasks.lookup import task_named
from itemese.features.config import FeaturesConfig
from itemese.knowledge.config import GraphConfig, KnowledgeConfig
from itemese.logs.config import LogsConfig
from itemese.methods.base import Method, MethodConfig, Need
from itemese.methods.lookup import method_class, method_names, method_of, parse_method_config
from itemese.sequences.config import SequencesConfig
from itemese.training.config import TrainingConfig


class RecommenderConfig(Config):
    """A conventional recommender that is trained first and handed, frozen, to the method.

    Attributes:
        method: Its settings; a method that gives items vectors (``sasrec``, ``din``, ...). One that
            is handed to a method, and not to the embeddings only, encodes histories too. It may
            read the embeddings itself, as they are without it.
        training: Its loop. The events, the split and the seed are those of the experiment.
    """

    method: SerializeAsAny[MethodConfig]
    training: TrainingConfig = TrainingConfig()

    @field_validator("method", mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> MethodConfig:
        return parse_method_config(values)

    @field_validator("method")
    @classmethod
    def _embeds(cls, config: MethodConfig) -> MethodConfig:
        method: Method = method_of(config)
        if not method.has_item_vectors or method.required() - {Need.EMBEDDINGS}:
            known = [n for n in method_names() if method_class(n).has_item_vectors]
            message = f"a method that gives items vectors by itself, one of {', '.join(known)}"
            raise ValueError(message)
        return config


class StartConfig(Config):
    """A run of the same method that comes first, and whose weights are gone on from.

    Attributes:
        method: Settings that differ from the experiment's `method`.
        training: Its loop.
        logs: Another data set; None is the experiment's own.
        sequences: Its order and split; None is the experiment's.
        start: What it goes on from itself, so that data sets follow one another.
    """

    method: Mapping[str, Any] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig()
    logs: LogsConfig | None = None
    sequences: SequencesConfig | None = None
    start: "StartConfig | None" = None


PartName = Annotated[str, Field(pattern=r"^\w+$")]


class Experiment(Config):
    """One section for each package; no package receives more than its own.

    Attributes:
        name: For reports and folders; changes no number.
        seed: Decides weights, order, dropout, codebooks.
        data_seed: Decides simulated logs and shuffled ties, so that runs of several seeds share
            one data set and one split.
        logs: Where the behaviour log comes from.
        sequences: Filtering, order and split.
        features: Typed fields; made only for methods that read them.
        knowledge: Texts that are written of items and of users; made only for methods that read
            them.
        graph: Edges of training events; made only for methods that read them.
        embeddings: Item vectors; made only for methods that need them.
        text_embeddings: Vectors of the texts of `knowledge`; made only for methods that need them.
        user_embeddings: Vectors of users; made only for methods that need them.
        codebooks: Semantic IDs; made only for methods that need them.
        recommender: Trained before the method; handed to a method that needs one, and a source of
            the embeddings if `embeddings.recommender` asks for it.
        start: Trained before the method, which goes on from it.
        parts: Recipes that are trained before the method, which is made of them: a path, seen from
            the recipe's file, or the recipe itself. They have this recipe's data, seeds and
            evaluation.
        method: The recommender; its `name` selects the settings that are allowed.
        training: The loop.
        evaluation: The protocol.
        artifacts: Settings of stages from outside this package, by the dotted path of the module
            that defines the stage.
    """

    name: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    data_seed: int = Field(default=0, ge=0)
    logs: LogsConfig
    sequences: SequencesConfig = SequencesConfig()
    features: FeaturesConfig = FeaturesConfig()
    knowledge: KnowledgeConfig | None = None
    graph: GraphConfig = GraphConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    text_embeddings: TextModelConfig = TextModelConfig()
    user_embeddings: UserEmbeddingsConfig = UserEmbeddingsConfig()
    codebooks: CodebooksConfig = CodebooksConfig()
    recommender: RecommenderConfig | None = None
    start: StartConfig | None = None
    parts: dict[PartName, "Experiment"] = Field(default_factory=dict)
    method: SerializeAsAny[MethodConfig]
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    artifacts: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _of_its_parts(cls, values: Any) -> Any:
        """Give a method of parts the settings of their methods."""
        method = values.get("method") if isinstance(values, dict) else None
        name = method.get("name") if isinstance(method, dict) else None
        if name not in method_names() or Need.PARTS not in method_class(name).needs:
            return values  # what is wrong with it, its own validation says
        parts = {
            name: part.method if isinstance(part, Experiment) else dict(part).get("method")
            for name, part in (values.get("parts") or {}).items()
        }
        return {**values, "method": {**dict(values["method"]), "parts": parts}}

    @field_validator("method", mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> MethodConfig:
        return parse_method_config(values)

    @model_validator(mode="after")
    def _has_its_recommender(self) -> Self:
        needed = Need.RECOMMENDER in method_of(self.method).required()
        if (needed or self.embeds_recommender) and self.recommender is None:
            reader = f"method {self.method.name!r}" if needed else "`embeddings.recommender`"
            message = (
                f"an experiment with a `recommender` section, because {reader} reads a trained "
                "recommender's vectors; add recommender: {method: {name: sasrec}}"
            )
            raise ValueError(message)
        if needed and not method_of(self.upstream.method).encodes_histories:
            known = [n for n in method_names() if method_class(n).encodes_histories]
            message = (
                f"an experiment whose `recommender` encodes histories, because method "
                f"{self.method.name!r} reads their states; {self.upstream.method.name!r} gives "
                f"items vectors only; take one of {', '.join(known)}"
            )
            raise ValueError(message)
        if needed and self.upstream.method.max_history < self.method.max_history:
            message = (
                "an experiment whose `recommender.method.max_history` is at least "
                f"`method.max_history`; {self.upstream.method.max_history} is below "
                f"{self.method.max_history}"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _has_the_texts_it_embeds(self) -> Self:
        if Need.TEXT_EMBEDDINGS in method_of(self.method).required() and self.knowledge is None:
            message = (
                f"an experiment with a `knowledge` section, because method {self.method.name!r} "
                "reads vectors of its texts; add knowledge: {texts: [factors], domain: movies, "
                "users: {texts: [factor_taste]}}"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if (Need.PARTS in method_of(self.method).required()) != bool(self.parts):
            message = (
                f"an experiment with `parts`, trained recipes by name, and a method that is made "
                f"of them, such as blend; got method {self.method.name!r} and parts "
                f"{sorted(self.parts)}"
            )
            raise ValueError(message)
        own = _data_of(self)
        for name, part in self.parts.items():
            theirs = _data_of(part)
            differ = [path for path in own | theirs if own.get(path) != theirs.get(path)]
            if differ:
                message = (
                    f"an experiment whose parts have its data: `{differ[0]}` is "
                    f"{own.get(differ[0])!r}, that of part {name!r} {theirs.get(differ[0])!r}"
                )
                raise ValueError(message)
            method = method_of(part.method)
            if part.parts or not method.gives_probabilities or part.task.name != "next_item":
                message = (
                    f"an experiment whose parts hold probabilities of the next item; part {name!r} "
                    f"is of method {part.method.name!r}"
                )
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _probabilities_are_comparable(self) -> Self:
        task = task_named(method_of(self.method).task)
        if not task.asks_probabilities:
            return self
        drawn = method_of(self.method).negatives_per_click
        judged = task.num_drawn(self.evaluation)
        if self.sequences.clicked_at is None and drawn != judged:
            message = (
                "an experiment whose `evaluation.click_negatives` is the number of non-clicks a "
                f"click that method {self.method.name!r} expects, or its probabilities are off; "
                f"{judged} is not {drawn}"
            )
            raise ValueError(message)
        needs = method_of(self.method).required()
        if Need.SEMANTIC_IDS in needs and self.codebooks.disambiguation == "none":
            message = (
                "an experiment whose `codebooks.disambiguation` gives every item codes of its own, "
                "because clicks are of single items; take suffix or reassign"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _clusters_come_first(self) -> Self:
        clusters = self.knowledge.clusters if self.knowledge else None
        if clusters and self.embeddings.knowledge:
            message = (
                "an experiment whose `knowledge.clusters` are made of embeddings without "
                "`embeddings.knowledge`; leave one of them out"
            )
            raise ValueError(message)
        users = self.knowledge.users if self.knowledge else None
        if clusters and clusters.users and users and users.share < self.user_embeddings.share:
            message = (
                "an experiment whose `user_embeddings.share` is at most `knowledge.users.share`, "
                "or clusters of users know events that no text may show; "
                f"{self.user_embeddings.share} is above {users.share}"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _task_is_known(self) -> Self:
        if self.evaluation.task is not None:
            task_named(self.evaluation.task)
        return self

    @model_validator(mode="after")
    def _can_go_on(self) -> Self:
        if self.start is None:
            return self
        if not method_of(self.method).warm_starts:
            known = [n for n in method_names() if method_class(n).warm_starts]
            message = (
                f"an experiment without `start`, because method {self.method.name!r} goes on from "
                f"nothing; that is known to {', '.join(known)}"
            )
            raise ValueError(message)
        type(self).model_validate(self.preceding.values())
        return self

    @property
    def task(self) -> Task:
        """What is asked of the method: `evaluation.task`, or else the method's own task."""
        return task_named(self.evaluation.task or method_of(self.method).task)

    @property
    def preceding(self) -> "Experiment":
        """The experiment that trains the `start` section, on the same seed."""
        start = self.start
        assert start is not None, "only asked for where the section is there"
        method = with_values(self.method.model_dump(mode="json"), flat_paths(start.method))
        parts = {
            "method": parse_method_config(method),
            "training": start.training,
            "logs": start.logs or self.logs,
            "sequences": start.sequences or self.sequences,
            "start": start.start,
        }
        return self.model_copy(update=parts)

    def part(self, name: str) -> "Experiment":
        """The experiment that trains a part, on this one's seeds and under its evaluation."""
        shared = {n: getattr(self, n) for n in ("seed", "data_seed", "evaluation")}
        return self.parts[name].model_copy(update=shared)

    @property
    def embeds_recommender(self) -> bool:
        """Whether the method reads embeddings that the `recommender` is a source of."""
        reads = method_of(self.method).required() & {Need.EMBEDDINGS, Need.SEMANTIC_IDS}
        return bool(reads) and self.embeddings.recommender is not None

    @property
    def upstream(self) -> "Experiment":
        """The experiment that trains the `recommender` section on the same data and seed."""
        assert self.recommender is not None, "only asked for where the section was checked"
        parts = {"method": self.recommender.method, "training": self.recommender.training}
        own = self.embeddings.model_copy(update={"recommender": None})
        return self.model_copy(
            update={**parts, "recommender": None, "start": None, "embeddings": own}
        )

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Iterable[str] = ()) -> Self:
        """Read a recipe and apply ``path=value`` overrides.

        Raises:
            ConfigError: The file cannot be read, or a value is refused.
        """
        return cls.parse(with_overrides(read_recipe(path), overrides))

    def with_seed(self, seed: int) -> Self:
        """Return the same experiment with another seed (the data stay)."""
        return self.model_copy(update={"seed": seed})

    def values(self) -> Mapping[str, Any]:
        """Return all settings, defaults included, as plain nested values."""
        dump: dict[str, Any] = self.model_dump(mode="json")
        return dump

    def run(self, storage: str | Path = "runs") -> dict[str, Any]:
        """Prepare, train and evaluate; return the result that ``result.json`` holds."""
        from itemese.core.artifacts import Store
        from itemese.pipeline.run import Run  # late: a run holds an experiment

        return Run(self, Store(storage)).result


def _data_of(experiment: Experiment) -> dict[str, Any]:
    """Return the settings that decide which data an experiment has, by path."""
    values = experiment.model_dump(mode="json", include={"logs", "sequences"})
    return flat_paths(values)
