"""The bundle: all that a service needs of one trained method, in one folder.

Plain files: weights as safetensors, the catalogue, the artifacts that the method answers with
(``artifacts/<need>/``: semantic IDs, vectors), the recipe and a model card. ``bundle.json`` is
written last and holds the hash of each of the others, so a folder without it is no bundle and a
changed byte is noticed. Nothing in it is a pickle and nothing in it is code; files that
``bundle.json`` does not name are never opened.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import torch
import yaml

from itemese import __version__
from itemese.core.artifacts import Folder
from itemese.core.config import digest_of
from itemese.core.errors import ArtifactError, ConfigError, DataError
from itemese.core.model_card import model_card
from itemese.core.schema import Catalog
from itemese.core.stages import reader_of
from itemese.core.vectors import SemanticIds
from itemese.core.yaml_loader import load_yaml

FORMAT_VERSION = 2
"""Raised when a reader of older code could not use what this one writes."""

_REQUIRED = (
    "model.safetensors",
    "catalog.parquet",
    "experiment.yaml",
    "method.json",
    "metrics.json",
    "ancestry.json",
    "README.md",
)
_ARTIFACT = re.compile(r"artifacts/(?P<need>\w+(\.\w+)*)(/(?!\.)[\w.-]+)+")
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class Bundle:
    """What `read_bundle` returns; every byte of it was checked against its hash.

    Attributes:
        experiment: The whole recipe, as read from YAML.
        method_config: The recipe's ``method`` section with all defaults filled in.
        state: Tensors of the module, on the CPU.
        catalog: The items.
        artifacts: What the method answers with, by need, as its reader returns it.
        file_digests: `Method.file_digests` of the trained method: templates, pretrained weights.
        metrics: ``"test/recall@10" -> {"value", "low", "high"}`` and so on.
        ancestry: Manifests of all artifacts that it was made from, by key.
        created: ISO time, UTC.
        code_version: Version of this package that wrote it.
        digest: Hash of the hashes of its files: equal contents, equal digest.
        uri: Where it was read from.
    """

    experiment: dict[str, Any]
    method_config: dict[str, Any]
    state: dict[str, torch.Tensor]
    catalog: Catalog
    artifacts: dict[str, Any]
    file_digests: dict[str, str]
    metrics: dict[str, Any]
    ancestry: dict[str, Any]
    created: str
    code_version: str
    digest: str
    uri: str

    @property
    def semantic_ids(self) -> SemanticIds | None:
        """Codes of the items, if the method answers with them."""
        return self.artifacts.get("codebooks")

    @property
    def name(self) -> str:
        """Name of the experiment with the first digits of the digest: one model, one name."""
        return f"{self.experiment.get('name', self.method_config['name'])}@{self.digest[:8]}"


def write_bundle(
    folder: Folder,
    *,
    experiment: Mapping[str, Any],
    method_config: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    catalog: Catalog,
    metrics: Mapping[str, Any],
    ancestry: Mapping[str, Any],
    artifacts: Mapping[str, Any] | None = None,
    file_digests: Mapping[str, str] | None = None,
) -> None:
    """Write a bundle; an older one in the same folder stops being one as soon as this begins.

    Args:
        folder: Any filesystem; created if missing. Other files in it are left alone.
        experiment: The whole recipe.
        method_config: The method's section with defaults filled in.
        state: Tensors from which the method's `restore` rebuilds its module.
        catalog: The items in the order of their index.
        metrics: What evaluation measured.
        ancestry: Manifests by artifact key.
        artifacts: What the method answers with, by need; each has ``write(folder)``.
        file_digests: `Method.file_digests` of the trained method.

    Raises:
        ArtifactError: A weight is NaN, or the storage cannot be written.
    """
    _refuse_nan(state, str(method_config.get("name")))
    _forget(folder)
    folder.write_tensors("model.safetensors", state)
    folder.write_table("catalog.parquet", catalog.table)
    written = list(_REQUIRED)
    for need, artifact in (artifacts or {}).items():
        place = folder.child(f"artifacts/{need}")
        place.delete()
        artifact.write(place)
        written += [f"artifacts/{need}/{name}" for name in place.tree()]
    recipe = yaml.safe_dump(dict(experiment), sort_keys=False, allow_unicode=True)
    folder.write_bytes("experiment.yaml", recipe.encode())
    folder.write_json("method.json", dict(method_config))
    folder.write_json("metrics.json", dict(metrics))
    folder.write_json("ancestry.json", dict(ancestry))
    card = model_card(experiment, method_config, catalog, metrics, ancestry)
    folder.write_bytes("README.md", card.encode())
    files = {name: _fingerprint(folder, name) for name in sorted(written)}
    folder.write_json(
        "bundle.json",
        {
            "format_version": FORMAT_VERSION,
            "code_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "digest": digest_of(files),
            "files": files,
            "file_digests": dict(file_digests or {}),
        },
    )


def find_bundle(location: str | Path) -> Folder:
    """Return the folder of a bundle: the one given, or the winner's if that is a study's.

    Raises:
        ArtifactError: The study has no winner.
    """
    folder = Folder.at(location)
    if folder.exists("bundle.json") or not folder.exists("space.json"):
        return folder
    winner = folder.child("winner")
    if not winner.exists("bundle.json"):
        message = (
            f"`bundle` must be a bundle, or a study with a winner; got the study {folder.uri!r} "
            "without one. Let `jobs/search.py --resume` finish it."
        )
        raise ArtifactError(message)
    return winner


def copy_bundle(source: Folder, target: Folder) -> None:
    """Copy the files that a bundle's record names, and the record last.

    A copy that is cut short is no bundle, and whatever stood in `target` is none from the start.

    Raises:
        ArtifactError: The source is no bundle, or the copy is not whole.
    """
    record = _read_record(source)
    target.create()
    _forget(target)
    here, path = source.filesystem()
    there, place = target.filesystem()
    try:
        for name in record["files"]:
            target.child(name.rpartition("/")[0]).create() if "/" in name else None
            pafs.copy_files(f"{path}/{name}", f"{place}/{name}", here, there)
    except OSError as error:
        message = f"`bundle` must be copied to {target.uri!r}; got {error}. Copy it again."
        raise ArtifactError(message) from None
    target.write_json("bundle.json", record)
    verify_bundle(target)


def verify_bundle(folder: Folder) -> dict[str, Any]:
    """Check that a bundle is whole without loading it; return what ``bundle.json`` holds.

    Raises:
        ArtifactError: The folder is no bundle, its format is another one, or a file is missing or
            changed.
    """
    record = _read_record(folder)
    for name, expected in record["files"].items():
        _check(folder, name, expected)
    return record


def read_bundle(folder: Folder) -> Bundle:
    """Read a bundle and check every byte of it.

    Raises:
        ArtifactError: The folder is no bundle, its format is another one, a file is missing or
            changed, or a weight is NaN.
    """
    record = verify_bundle(folder)
    try:
        catalog = Catalog.read(folder)
        artifacts = {
            need: reader_of(need).read(folder.child(f"artifacts/{need}"))
            for need in _needs(record["files"])
        }
        for artifact in artifacts.values():
            artifact.validate(catalog.num_items)
        experiment = load_yaml(folder.read_bytes("experiment.yaml"), "experiment.yaml")
    except (ConfigError, DataError, KeyError, TypeError, pa.ArrowException) as error:
        message = f"`bundle` must hold readable files; got {folder.uri!r}: {error}. Write it again."
        raise ArtifactError(message) from None
    if not catalog.num_items or len(catalog.index_of) != catalog.num_items:
        message = f"`bundle.catalog` must hold unique items; got {folder.uri!r}. Write it again."
        raise ArtifactError(message)
    method_config = folder.read_json("method.json")
    if not isinstance(experiment, dict) or not isinstance(method_config, dict):
        message = f"`bundle.experiment` must be a mapping; got {folder.uri!r}. Write it again."
        raise ArtifactError(message)
    state = folder.read_tensors("model.safetensors")
    _refuse_nan(state, str(method_config.get("name")))
    return Bundle(
        experiment=experiment,
        method_config=method_config,
        state=state,
        catalog=catalog,
        artifacts=artifacts,
        file_digests=dict(record.get("file_digests") or {}),
        metrics=folder.read_json("metrics.json"),
        ancestry=folder.read_json("ancestry.json"),
        created=str(record.get("created", "")),
        code_version=str(record.get("code_version", "")),
        digest=record["digest"],
        uri=folder.uri,
    )


def _forget(folder: Folder) -> None:
    """Remove ``bundle.json`` first, so that a write cut short leaves no bundle behind."""
    if folder.exists("bundle.json"):
        filesystem, path = folder.filesystem()
        filesystem.delete_file(f"{path}/bundle.json")


def _fingerprint(folder: Folder, name: str) -> dict[str, Any]:
    """Return the SHA-256 and the size in bytes of one file, read in pieces."""
    filesystem, path = folder.filesystem()
    digest, size = hashlib.sha256(), 0
    try:
        with filesystem.open_input_stream(f"{path}/{name}") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        message = f"`bundle.{name}` must be readable; got {error}. Write the bundle again."
        raise ArtifactError(message) from None
    return {"sha256": digest.hexdigest(), "bytes": size}


def _read_record(folder: Folder) -> dict[str, Any]:
    """Return ``bundle.json`` once its own form is known to be right."""
    if not folder.exists("bundle.json"):
        message = (
            f"`bundle` must be a folder with a bundle.json; got {folder.uri!r}. "
            "Give the folder that `jobs/search.py` or `pipeline.bundle` wrote."
        )
        raise ArtifactError(message)
    found = folder.read_json("bundle.json")
    record: dict[str, Any] = found if isinstance(found, dict) else {}
    version = record.get("format_version")
    if version != FORMAT_VERSION:
        message = (
            f"`bundle.format_version` must be {FORMAT_VERSION}; got {version!r} in {folder.uri!r}. "
            "Write the bundle with this version of itemese, or serve it with the one that did."
        )
        raise ArtifactError(message)
    files = record.get("files")
    plain = isinstance(files, dict) and all(map(_is_known, files))
    if not isinstance(files, dict) or not plain or not set(_REQUIRED) <= set(files):
        named = sorted(files) if isinstance(files, dict) else files
        message = (
            f"`bundle.files` must name {sorted(_REQUIRED)}; got {named} in {folder.uri!r}. "
            "Write the bundle again."
        )
        raise ArtifactError(message)
    digest = digest_of(files)
    if record.get("digest") != digest:
        message = (
            f"`bundle.digest` must be the hash of its files, {digest}; got "
            f"{record.get('digest')!r} in {folder.uri!r}. Copy the bundle again."
        )
        raise ArtifactError(message)
    return record


def _is_known(name: str) -> bool:
    """Return whether a bundle may hold a file of that name; none leads out of its folder."""
    return name in _REQUIRED or bool(_ARTIFACT.fullmatch(name))


def _needs(names: Iterable[str]) -> list[str]:
    """Return the needs whose artifacts are among the files of a bundle."""
    found = (_ARTIFACT.fullmatch(name) for name in names)
    return sorted({match["need"] for match in found if match})


def _check(folder: Folder, name: str, expected: Any) -> None:
    """Raise unless the file is there with exactly the recorded bytes."""
    filesystem, path = folder.filesystem()
    if filesystem.get_file_info(f"{path}/{name}").type != pafs.FileType.File:
        message = f"`bundle.{name}` must exist; got none in {folder.uri!r}. Copy the whole folder."
        raise ArtifactError(message)
    found = _fingerprint(folder, name)
    if found != expected:
        message = (
            f"`bundle.{name}` must be the file that was written (sha256 and size); got "
            f"{found['bytes']} bytes with another hash in {folder.uri!r}. Copy the bundle again."
        )
        raise ArtifactError(message)


def _refuse_nan(state: Mapping[str, torch.Tensor], method: str) -> None:
    """Raise if a weight is not a number."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            message = f"`{method}.{name}` must hold numbers; got NaN. Train the model again."
            raise ArtifactError(message)
