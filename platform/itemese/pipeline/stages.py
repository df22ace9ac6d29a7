"""The table of stages: how each artifact is made, from what, and how a method is given it.

Training and evaluation are no rows of it: they belong to a method, see `pipeline.run`.
"""

from collections.abc import Mapping
from typing import Any

from itemese.backbones.pretrained import find_pretrained
from itemese.codebooks.stage import VERSION as CODEBOOKS_VERSION
from itemese.codebooks.stage import build_codebooks
from itemese.core.artifacts import Artifact, Counts, Folder
from itemese.core.config import digest_of, nearest
from itemese.core.errors import ConfigError
from itemese.core.graph import Graph
from itemese.core.source import weights_digest
from itemese.core.stages import (
    READERS,
    Loadable,
    Reader,
    StageSpec,
    Stored,
    Surroundings,
    outside_stage,
)
from itemese.core.texts import Texts
from itemese.core.vectors import Embeddings
from itemese.embeddings.config import HASHING_MODEL, TextModelConfig
from itemese.embeddings.models import locate
from itemese.embeddings.stage import VERSION as EMBEDDINGS_VERSION
from itemese.embeddings.stage import build_embeddings
from itemese.embeddings.texts import VERSION as TEXT_EMBEDDINGS_VERSION
from itemese.embeddings.texts import build_text_embeddings, read_text_embeddings
from itemese.embeddings.users import VERSION as USER_EMBEDDINGS_VERSION
from itemese.embeddings.users import build_user_embeddings
from itemese.features.stage import FIELDS_VERSION, USERS_VERSION, build_fields, build_users
from itemese.knowledge.clusters import VERSION as CLUSTERS_VERSION
from itemese.knowledge.clusters import build_clusters
from itemese.knowledge.config import KnowledgeConfig
from itemese.knowledge.graph import VERSION as GRAPH_VERSION
from itemese.knowledge.graph import build_graph
from itemese.knowledge.prompts import wording_digest
from itemese.knowledge.stage import VERSION as KNOWLEDGE_VERSION
from itemese.knowledge.stage import build_knowledge
from itemese.logs.stage import VERSION as LOGS_VERSION
from itemese.logs.stage import build_logs, fingerprint
from itemese.methods.base import Method, Need
from itemese.sequences.stage import VERSION as SEQUENCES_VERSION
from itemese.sequences.stage import build_sequences

Inputs = Mapping[str, Folder]

CLUSTERS = "clusters"
"""An artifact that stages alone read."""


def _build_logs(config: Any, inputs: Inputs, around: Surroundings, out: Folder) -> Counts:
    return build_logs(config, out, seed=around.data_seed)


def _build_sequences(config: Any, inputs: Inputs, around: Surroundings, out: Folder) -> Counts:
    return build_sequences(config, inputs["logs"], out, seed=around.data_seed)


def _build_knowledge(config: Any, inputs: Inputs, around: Surroundings, out: Folder) -> Counts:
    cache, clusters = around.root.child("cache/knowledge"), inputs.get(CLUSTERS)
    return build_knowledge(
        config, inputs["sequences"], inputs[Need.USERS], cache, out, clusters=clusters
    )


def _build_clusters(config: Any, inputs: Inputs, around: Surroundings, out: Folder) -> Counts:
    return build_clusters(config, inputs[Need.EMBEDDINGS], inputs[Need.USER_EMBEDDINGS], out)


def _build_users(config: Any, inputs: Inputs, around: Surroundings, out: Folder) -> Counts:
    return build_users(inputs["sequences"], inputs["logs"], out)


def _build_fields(config: Any, inputs: Inputs, around: Surroundings, out: Folder) -> Counts:
    return build_fields(config, inputs["sequences"], inputs[Need.USERS], out)


def _build_graph(config: Any, inputs: Inputs, around: Surroundings, out: Folder) -> Counts:
    return build_graph(config, inputs["sequences"], out)


def _build_text_vectors(config: Any, inputs: Inputs, around: Surroundings, out: Folder) -> Counts:
    return build_text_embeddings(config, inputs[Need.KNOWLEDGE], out)


def _build_user_vectors(config: Any, inputs: Inputs, around: Surroundings, out: Folder) -> Counts:
    return build_user_embeddings(config, inputs["sequences"], inputs[Need.EMBEDDINGS], out)


def _build_embeddings(config: Any, inputs: Inputs, around: Surroundings, out: Folder) -> Counts:
    return build_embeddings(config, inputs["sequences"], out, inputs.get(Need.KNOWLEDGE))


def _clusters_of(config: Any) -> tuple[str, ...]:
    return (CLUSTERS,) if config.clusters is not None else ()


def _knowledge_of(config: Any) -> tuple[str, ...]:
    return (Need.KNOWLEDGE,) if config.knowledge is not None else ()


def _build_codebooks(config: Any, inputs: Inputs, around: Surroundings, out: Folder) -> Counts:
    vectors, sequences = inputs[Need.EMBEDDINGS], inputs["sequences"]
    return build_codebooks(config, vectors, sequences, out, seed=around.seed)


def _raw_files(config: Any, around: Surroundings) -> str:
    return fingerprint(config, around.data_seed)


def _text_model(config: TextModelConfig, around: Surroundings) -> str:
    if config.model == HASHING_MODEL:  # no weights, and no name of the hub
        return ""
    return weights_digest(locate(config.model))


def _writer(config: KnowledgeConfig, around: Surroundings) -> str:
    weights = ""
    if config.writer == "model":
        assert config.model is not None, "a writer that is a model has one"
        weights = find_pretrained(config.model, "knowledge.model").digest()
    return digest_of([wording_digest(config), weights])


def _same(folder: Folder) -> Folder:
    return folder


STAGES: dict[str, StageSpec] = {
    spec.name: spec
    for spec in (
        StageSpec(
            name="logs",
            version=LOGS_VERSION,
            section="logs",
            outside=_raw_files,
            build=_build_logs,
            code=(build_logs.__module__,),
            reader=Reader(_same),
        ),
        StageSpec(
            name="sequences",
            version=SEQUENCES_VERSION,
            section="sequences",
            inputs=("logs",),
            seeds=("data_seed",),
            build=_build_sequences,
            code=(build_sequences.__module__,),
            reader=Reader(_same),
        ),
        StageSpec(
            name=Need.USERS,
            version=USERS_VERSION,
            inputs=("sequences", "logs"),
            build=_build_users,
            code=(build_users.__module__,),
            reader=READERS[Need.USERS],
        ),
        StageSpec(
            name=Need.FIELDS,
            version=FIELDS_VERSION,
            section="features",
            inputs=("sequences", Need.USERS),
            build=_build_fields,
            code=(build_fields.__module__,),
            reader=READERS[Need.FIELDS],
        ),
        StageSpec(
            name=Need.GRAPH,
            version=GRAPH_VERSION,
            section="graph",
            inputs=("sequences",),
            build=_build_graph,
            code=(build_graph.__module__,),
            reader=Reader(Graph.read),
        ),
        StageSpec(
            name=CLUSTERS,
            version=CLUSTERS_VERSION,
            section="knowledge.clusters",
            inputs=(Need.EMBEDDINGS, Need.USER_EMBEDDINGS),
            build=_build_clusters,
            code=(build_clusters.__module__,),
            reader=Reader(_same),
        ),
        StageSpec(
            name=Need.KNOWLEDGE,
            version=KNOWLEDGE_VERSION,
            section="knowledge",
            inputs=("sequences", Need.USERS),
            also=_clusters_of,
            outside=_writer,
            build=_build_knowledge,
            code=(build_knowledge.__module__,),
            reader=Reader(Texts.read_all),
        ),
        StageSpec(
            name=Need.EMBEDDINGS,
            version=EMBEDDINGS_VERSION,
            section="embeddings",
            inputs=("sequences",),
            also=_knowledge_of,
            outside=_text_model,
            build=_build_embeddings,
            code=(build_embeddings.__module__,),
            reader=READERS[Need.EMBEDDINGS],
        ),
        StageSpec(
            name=Need.TEXT_EMBEDDINGS,
            version=TEXT_EMBEDDINGS_VERSION,
            section="text_embeddings",
            inputs=(Need.KNOWLEDGE,),
            outside=_text_model,
            build=_build_text_vectors,
            code=(build_text_embeddings.__module__,),
            reader=Reader(read_text_embeddings),
        ),
        StageSpec(
            name=Need.USER_EMBEDDINGS,
            version=USER_EMBEDDINGS_VERSION,
            section="user_embeddings",
            inputs=("sequences", Need.EMBEDDINGS),
            build=_build_user_vectors,
            code=(build_user_embeddings.__module__,),
            reader=Reader(Embeddings.read),
        ),
        StageSpec(
            name=Need.SEMANTIC_IDS,
            version=CODEBOOKS_VERSION,
            section="codebooks",
            inputs=(Need.EMBEDDINGS, "sequences"),
            seeds=("seed",),
            build=_build_codebooks,
            code=(build_codebooks.__module__,),
            reader=READERS[Need.SEMANTIC_IDS],
        ),
    )
}
"""Every artifact that this package makes, by the name that a method needs it by."""


def stage_of(name: str) -> StageSpec:
    """Return the stage that makes an artifact.

    Args:
        name: A key of `STAGES`; or the dotted path of a module outside this package that defines
            `STAGE`.

    Raises:
        ConfigError: There is none; the nearest name is suggested.
    """
    found = STAGES.get(name) or (outside_stage(name) if "." in name else None)
    if found is None:
        message = (
            f"`needs` must name known artifacts, or modules that define STAGE; got {name!r}. "
            f"{nearest(name, STAGES)}"
        )
        raise ConfigError(message)
    return found


def answered_with(method: Method) -> frozenset[str]:
    """Return the artifacts that a trained method reads when it answers."""
    reads = method.required() - {Need.RECOMMENDER} - method.built_from
    return frozenset(need for need in reads if reader_for(need).answers)


def reader_for(need: str) -> Reader:
    """Return the reader of an artifact that a method needs."""
    return READERS[need] if need == Need.PARTS else stage_of(need).reader


def stored(method: Method, artifacts: Mapping[str, Artifact]) -> dict[str, Loadable]:
    """Return what a trained method answers with, as `training.stage.load_module` reads it."""
    return {n: Stored(artifacts[n].folder, reader_for(n)) for n in answered_with(method)}
