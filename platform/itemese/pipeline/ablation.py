"""Variants of one recipe beside each other, over several seeds."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from itemese.core.artifacts import Folder, Store
from itemese.core.config import (
    Config,
    digest_of,
    flat_paths,
    nearest,
    read_recipe,
    read_yaml,
    with_overrides,
    with_values,
)
from itemese.core.errors import ConfigError
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.judged import Judged
from itemese.evaluation.result_file import check_comparable, headline_metrics
from itemese.evaluation.significance import Figure, Row, paired_table
from itemese.evaluation.summary import slice_names, slices
from itemese.evaluation.tasks.lookup import read_judged
from itemese.methods.lookup import method_of
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run


class AblationConfig(Config):
    """One ablation file.

    Attributes:
        recipe: Path of the recipe, seen from the file.
        seeds: Of each variant.
        values: Dotted paths of the recipe that all variants share, with their values.
        variants: Names, each with the dotted paths that it changes.
        baseline: The variant or rival that all others are tested against.
        metrics: Of the task; None takes its headline metrics.
        slices: Of the test requests (`evaluation.summary.slices`), for which the last metric is
            tabulated and tested too.
        rivals: Paths of other recipes on the same data, seen from the file; they are run under the
            variants' `evaluation`, so that one table has one protocol.
        judges_recommender: The recommender that the variants read is one more rival, "recommender".
    """

    recipe: str
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    values: Mapping[str, Any] = Field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = Field(min_length=1)
    baseline: str
    metrics: tuple[str, ...] | None = Field(default=None, min_length=1)
    slices: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    judges_recommender: bool = False

    @field_validator("values", mode="before")
    @classmethod
    def _flat(cls, values: Any) -> Any:
        return flat_paths(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            message = "`seeds` that differ from each other"
            raise ValueError(message)
        return self


@dataclass(frozen=True)
class Ablation:
    """A checked ablation file.

    Attributes:
        config: What the file holds.
        experiments: Of each variant and rival by name, without their seeds.
    """

    config: AblationConfig
    experiments: Mapping[str, Experiment]

    @classmethod
    def read(
        cls, path: str | Path, overrides: list[str] | None = None, recipe: str | Path | None = None
    ) -> "Ablation":
        """Read a file and parse every variant before anything runs.

        Args:
            path: Of the file.
            overrides: ``path=value`` for every variant; of a rival only `evaluation` changes.
            recipe: Another recipe of the method, ``<method>_<data>.yaml``; the rivals are then
                those of its data, in its folder.

        Raises:
            ConfigError: A file cannot be read, a value is refused, or the baseline is unknown.
        """
        config = AblationConfig.parse(read_yaml(path), where="ablation")
        beside = Path(path).parent
        if recipe is not None:
            config = _on_other_data(config, Path(os.path.relpath(recipe, beside)))
        shared = with_values(read_recipe(beside / config.recipe), config.values)
        experiments: dict[str, Experiment] = {}
        for name, changes in config.variants.items():
            values = with_values(shared, {**flat_paths(changes), "name": name})
            experiments[name] = Experiment.parse(with_overrides(values, overrides or []))
        protocol = _protocol_of(experiments)
        rivals = [
            Experiment.parse({**read_recipe(beside / rival), "evaluation": protocol})
            for rival in config.rivals
        ]
        if config.judges_recommender:
            rivals.append(_recommender_of(list(experiments.values())))
        for experiment in rivals:
            if experiment.name in experiments:
                message = (
                    f"`rivals` must have names of their own; got {experiment.name!r} twice. "
                    "Rename the variant."
                )
                raise ConfigError(message)
            experiments[experiment.name] = experiment
        if config.baseline not in experiments:
            hint = nearest(config.baseline, list(experiments))
            message = f"`baseline` must be a variant or rival; got {config.baseline!r}. {hint}"
            raise ConfigError(message)
        _require_metrics(config, experiments)
        _require_slices(config, protocol)
        return cls(config, experiments)

    def with_seeds(self, seeds: Sequence[int]) -> Self:
        """Return the same with other seeds."""
        values = {**self.config.model_dump(mode="json"), "seeds": list(seeds)}
        return replace(self, config=AblationConfig.parse(values, where="ablation"))


def ablate(ablation: Ablation, store: Store) -> tuple[list[Row], Folder]:
    """Run what has not run, seed by seed, and tabulate all of it.

    Args:
        ablation: What is compared.
        store: Holds every run; a second call, or one that was stopped, goes on from there.

    Returns:
        The rows of `significance.paired_table` for each variant, rival and figure, and the folder
        that holds them in ``ablation.json``.

    Raises:
        ConfigError: Runs differ in data, split or protocol.
    """
    config = ablation.config
    runs: dict[str, dict[int, Judged]] = {}
    results: list[dict[str, Any]] = []
    for seed in config.seeds:
        for name, experiment in ablation.experiments.items():
            folder = Run(experiment.with_seed(seed), store).evaluated.folder
            results.append(folder.read_json("result.json"))
            runs.setdefault(name, {})[seed] = read_judged(folder)
    check_comparable(results)
    metrics = config.metrics or tuple(headline_metrics(results))
    first = runs[config.baseline][config.seeds[0]].in_order()
    evaluation = ablation.experiments[config.baseline].evaluation
    masks = {name: mask for name, _, mask in slices(first, evaluation)}
    figures = [Figure(metric) for metric in metrics]
    figures += [Figure(metrics[-1], name, masks[name]) for name in config.slices]
    rows = paired_table(runs, config.baseline, figures)
    facts = {"ablation": config.model_dump(mode="json"), "rows": rows}
    folder = store.root.child(f"ablations/{digest_of(facts)}")
    folder.write_json("ablation.json", facts)
    return rows, folder


def table(rows: list[Row]) -> str:
    """Return the rows as lines of text."""
    lines = [
        f"{'run':28s} {'figure':16s} {'mean [95 % over users]':26s} {'seeds':24s} less baseline"
    ]
    for row in rows:
        mean = f"{row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
        seeds = " ".join(f"{value:.4f}" for value in row["seeds"].values())
        less = ""
        if "difference" in row:
            less = (
                f"{row['difference']:+.4f} [{row['difference_low']:+.4f}, "
                f"{row['difference_high']:+.4f}], p (Holm) {row['p_holm']:.3g}"
            )
        lines.append(
            f"{row['name']:28s} {row['figure']:16s} {mean:26s} {seeds:24s} {less}".rstrip()
        )
    return "\n".join(lines)


def _require_metrics(config: AblationConfig, experiments: Mapping[str, Experiment]) -> None:
    """Raise `ConfigError` if some run's task has none of the metrics, before anything is trained.

    A task may give each method other metrics, such as those of its own ways of choosing.
    """
    for name, experiment in experiments.items():
        ways = method_of(experiment.method).choice_modes
        known = experiment.task.metrics(experiment.evaluation, ways)
        if config.metrics and not set(config.metrics) & set(known):
            message = (
                f"`metrics` must be of the task of every run; got {', '.join(config.metrics)} and "
                f"{name!r}, which has {', '.join(known)}. Choose among those, or leave it out."
            )
            raise ConfigError(message)


def _protocol_of(variants: Mapping[str, Experiment]) -> dict[str, Any]:
    """Return the `evaluation` section of all variants.

    Raises:
        ConfigError: They have different ones.
    """
    sections = {name: e.evaluation.model_dump(mode="json") for name, e in variants.items()}
    first = next(iter(sections))
    other = next((name for name in sections if sections[name] != sections[first]), None)
    if other is not None:
        message = (
            f"`variants` must have one `evaluation` section; got another one in {other!r} than in "
            f"{first!r}. Set it in `values`, for all of them."
        )
        raise ConfigError(message)
    return sections[first]


def _require_slices(config: AblationConfig, protocol: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if there is no such slice, before anything is trained."""
    known = slice_names(EvaluationConfig.parse(protocol))
    for name in config.slices:
        if name not in known:
            message = f"`slices` must be names of slices; got {name!r}. {nearest(name, known)}"
            raise ConfigError(message)


def _on_other_data(config: AblationConfig, recipe: Path) -> AblationConfig:
    """Return the file with another recipe, ``<method>_<data>.yaml``, and the rivals on that data.

    The path is seen from the file, as those in it are.
    """
    rivals = [Path(name).stem.rpartition("_")[0] for name in config.rivals]
    data = recipe.stem.rpartition("_")[2]
    there = [str(recipe.with_name(f"{rival}_{data}.yaml")) for rival in rivals]
    return config.model_copy(update={"recipe": str(recipe), "rivals": tuple(there)})


def _recommender_of(variants: Sequence[Experiment]) -> Experiment:
    """Return the recommender that every variant with one reads, as an experiment of its own.

    Raises:
        ConfigError: Variants read different ones, or none does.
    """
    read = {v.recommender.model_dump_json(): v for v in variants if v.recommender is not None}
    if len(read) != 1:
        message = (
            "`judges_recommender` must find one `recommender` section in all variants; got "
            f"{len(read)}. Give the recipe one, or leave this out."
        )
        raise ConfigError(message)
    return next(iter(read.values())).upstream.model_copy(update={"name": "recommender"})
