"""Content-addressed stage outputs on any filesystem, manifest last.

A stage is a function of (its section of the config, input artifacts). Its output lives under the
hash of exactly those, the stage's version and a digest of its source, so equal work is done once,
edited code is run again and every number can name its ancestors. Each attempt writes into a folder
of its own, and one small manifest, written last, names the attempt that counts. No rename is
needed, so the same code is right on a local folder, NFS, ``s3://`` and ``gs://``; a stage without a
manifest does not exist.
"""

import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from itemese import __version__
from itemese.core.config import Config, digest_of
from itemese.core.errors import ArtifactError, ItemeseError
from itemese.core.source import git_state

BEGUN = ".begun"
"""Ends the name of the folder that notes, beside an attempt, what it is being built from."""

Counts = dict[str, Any]
"""Row counts and other JSON-able facts of a stage's output."""


@dataclass(frozen=True)
class Folder:
    """A folder on any filesystem that pyarrow knows, named by a URI or a local path.

    Instances are small and picklable: Ray tasks receive the folder, never an open file.
    """

    uri: str

    @classmethod
    def at(cls, location: str | Path) -> "Folder":
        """Return the folder at a URI (``s3://bucket/x``) or at a local path, made absolute."""
        text = str(location)
        if "://" in text:
            return cls(text.rstrip("/"))
        return cls(str(Path(text).expanduser().resolve()))

    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        """Return pyarrow's filesystem and this folder's path on it.

        Raises:
            ArtifactError: The scheme is unknown or the store cannot be reached.
        """
        try:
            filesystem, path = pafs.FileSystem.from_uri(self.uri)
        except (pa.ArrowInvalid, OSError) as error:
            message = f"`storage` must be a reachable folder; got {self.uri!r} ({error})."
            raise ArtifactError(message) from None
        return filesystem, path

    def child(self, name: str) -> "Folder":
        """Return the sub-folder `name`; nothing is created."""
        return Folder(f"{self.uri}/{name}")

    def create(self) -> "Folder":
        """Make the folder (and its parents) exist; return self."""
        filesystem, path = self.filesystem()
        with _clear_errors(self.uri, "written to"):
            filesystem.create_dir(path, recursive=True)
        return self

    def names(self, suffix: str = "") -> list[str]:
        """Return the sorted names of the files directly inside that end in `suffix`."""
        filesystem, path = self.filesystem()
        selector = pafs.FileSelector(path, recursive=False, allow_not_found=True)
        files = (i for i in filesystem.get_file_info(selector) if i.type == pafs.FileType.File)
        return sorted(i.base_name for i in files if i.base_name.endswith(suffix))

    def tree(self) -> list[str]:
        """Return the sorted paths of all files inside, seen from here."""
        filesystem, path = self.filesystem()
        selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
        files = (i for i in filesystem.get_file_info(selector) if i.type == pafs.FileType.File)
        return sorted(i.path.removeprefix(path).lstrip("/") for i in files)

    def exists(self, name: str) -> bool:
        """Return whether the file `name` is directly inside.

        Raises:
            ArtifactError: The storage does not say.
        """
        filesystem, path = self.filesystem()
        with _clear_errors(f"{self.uri}/{name}", "reached"):
            return bool(filesystem.get_file_info(f"{path}/{name}").type == pafs.FileType.File)

    def delete(self) -> None:
        """Remove the folder with everything in it; a missing one is no error."""
        filesystem, path = self.filesystem()
        if filesystem.get_file_info(path).type == pafs.FileType.Directory:
            filesystem.delete_dir(path)

    def read_bytes(self, name: str) -> bytes:
        """Return the whole file `name`.

        Raises:
            ArtifactError: It is missing or cannot be read.
        """
        filesystem, path = self.filesystem()
        with (
            _clear_errors(f"{self.uri}/{name}", "read"),
            filesystem.open_input_stream(f"{path}/{name}") as stream,
        ):
            return bytes(stream.read())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write the whole file `name`; on a local disk a reader never sees half of it."""
        filesystem, path = self.filesystem()
        self.create()
        local = isinstance(filesystem, pafs.LocalFileSystem)
        # Object stores publish a file only when it is closed; a local disk needs the rename.
        target = f"{path}/.{name}.{uuid.uuid4().hex[:8]}" if local else f"{path}/{name}"
        with _clear_errors(f"{self.uri}/{name}", "written"):
            try:
                with filesystem.open_output_stream(target) as stream:
                    stream.write(content)
                if local:
                    Path(target).replace(f"{path}/{name}")
            except OSError:
                if local:
                    Path(target).unlink(missing_ok=True)
                raise

    def read_json(self, name: str) -> Any:
        """Return the value in the JSON file `name`."""
        try:
            return json.loads(self.read_bytes(name))
        except ValueError:
            message = f"`{self.uri}/{name}` must be JSON; got a torn file. Delete its folder."
            raise ArtifactError(message) from None

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON-able value, indented, NaN refused."""
        self.write_bytes(name, json.dumps(value, indent=1, allow_nan=False).encode())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return the Parquet file `name`, or only some of its columns."""
        filesystem, path = self.filesystem()
        # ParquetFile reads one file as it is; read_table would infer hive partitions.
        with (
            _clear_errors(f"{self.uri}/{name}", "read"),
            pq.ParquetFile(f"{path}/{name}", filesystem=filesystem) as file,
        ):
            return file.read(columns=columns)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file, zstd."""
        filesystem, path = self.filesystem()
        self.create()
        with _clear_errors(f"{self.uri}/{name}", "written"):
            pq.write_table(table, f"{path}/{name}", filesystem=filesystem, compression="zstd")

    def read_tensors(self, name: str) -> dict[str, torch.Tensor]:
        """Return the tensors of the safetensors file `name`, on the CPU."""
        try:
            return dict(load_tensors(self.read_bytes(name)))
        except SafetensorError as error:
            message = f"`{self.uri}/{name}` must be a whole safetensors file; got {error}."
            raise ArtifactError(message) from None

    def write_tensors(self, name: str, tensors: Mapping[str, torch.Tensor | np.ndarray]) -> None:
        """Write tensors or arrays as one safetensors file."""
        ready = {k: torch.as_tensor(v).detach().cpu().contiguous() for k, v in tensors.items()}
        self.write_bytes(name, save_tensors(ready))


class _clear_errors:  # noqa: N801  (reads as a verb at its uses)
    """Turn a filesystem's error into one ArtifactError that names the place and the remedy."""

    def __init__(self, place: str, verb: str) -> None:
        self.place = place
        self.verb = verb

    def __enter__(self) -> None:
        """Enter without doing anything."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Translate OSError and Arrow's errors; let all others pass."""
        if isinstance(error, OSError | pa.ArrowException) and not isinstance(error, ItemeseError):
            remedies = {
                "read": "Check that it exists; a stage is rebuilt by running `prepare` again.",
                "reached": "Check the address of --storage and the right to use it.",
            }
            remedy = remedies.get(self.verb, "Free space or choose another --storage.")
            message = f"`{self.place}` could not be {self.verb}: {error}. {remedy}"
            raise ArtifactError(message) from None


@dataclass(frozen=True)
class Manifest:
    """The record of one finished stage: what it was made from and what came out."""

    stage: str
    version: int
    attempt: str
    config: dict[str, Any]
    inputs: dict[str, str]
    counts: Counts
    seconds: float
    code_version: str
    created: str
    source: str = ""
    git: dict[str, str | bool] | None = None


@dataclass(frozen=True)
class Artifact:
    """A finished stage output.

    Attributes:
        key: ``<stage>/<hash>``, the same wherever the store lies.
        folder: Where its files are.
        manifest: How it came to be.
        reused: Whether this call found it instead of building it.
    """

    key: str
    folder: Folder
    manifest: Manifest
    reused: bool = field(default=False, compare=False)

    @property
    def counts(self) -> Counts:
        """Row counts and other facts of the output."""
        return self.manifest.counts


@dataclass(frozen=True)
class Wanted:
    """A stage's output by everything that decides it.

    Attributes:
        name: The stage.
        version: Its version.
        values: The settings, as plain values.
        inputs: Keys of artifacts, or fingerprints, by role.
        source: Digest of the code.
    """

    name: str
    version: int
    values: dict[str, Any]
    inputs: dict[str, str]
    source: str

    @classmethod
    def of(
        cls,
        name: str,
        version: int,
        config: Config | None,
        inputs: Mapping[str, Artifact | str],
        source: str,
    ) -> "Wanted":
        """Gather what `Store.stage` is given."""
        roles = {role: i.key if isinstance(i, Artifact) else i for role, i in inputs.items()}
        return cls(name, version, config.model_dump(mode="json") if config else {}, roles, source)

    @cached_property
    def key(self) -> str:
        """``<stage>/<hash>``."""
        parts = [self.name, self.version, self.values, self.inputs, self.source]
        return f"{self.name}/{digest_of(parts)}"

    def manifest(self, attempt: str, counts: Counts, seconds: float) -> Manifest:
        """Return the record of a finished attempt."""
        return Manifest(
            stage=self.name,
            version=self.version,
            attempt=attempt,
            config=self.values,
            inputs=self.inputs,
            counts=counts,
            seconds=seconds,
            code_version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=self.source,
            git=git_state(),
        )


class Store:
    """All artifacts of a storage location.

    Finished artifacts never change, so each is looked up once and then remembered.
    """

    def __init__(self, location: str | Path) -> None:
        self.root = Folder.at(location)
        self._found: dict[str, Artifact] = {}
        self._once: dict[str, str] = {}

    def once(self, parts: Any, compute: Callable[[], str]) -> str:
        """Return a fingerprint of what lies outside, computed once for equal `parts`.

        Runs that share a store share it, so raw files that change meanwhile are not noticed.
        """
        name = digest_of(parts)
        if name not in self._once:
            self._once[name] = compute()
        return self._once[name]

    def find(self, key: str) -> Artifact | None:
        """Return the finished artifact `key`, or None."""
        if key not in self._found:
            home = self.root.child(key)
            if not home.exists("manifest.json"):
                return None
            manifest = Manifest(**home.read_json("manifest.json"))
            self._found[key] = Artifact(key, home.child(manifest.attempt), manifest, reused=True)
        return self._found[key]

    def stage(
        self,
        name: str,
        *,
        version: int,
        config: Config | None,
        inputs: Mapping[str, Artifact | str],
        build: Callable[[Folder], Counts],
        source: str = "",
    ) -> Artifact:
        """Return the stage's output, building it only if no equal one is finished.

        Args:
            name: The stage, for example ``"sequences"``.
            version: Raised by hand where something besides the source changes what is written.
            config: The section of the experiment that decides the output.
            inputs: Artifacts, or fingerprints of what lies outside the store, by role.
            build: Fills the folder that it is given and returns counts.
            source: `source.source_digest` of the code that builds.

        Raises:
            ArtifactError: The storage cannot be written. Nothing half-written stays behind.
        """
        wanted = Wanted.of(name, version, config, inputs, source)
        return self.find(wanted.key) or self.make(wanted, build)

    def make(self, wanted: "Wanted", build: Callable[[Folder], Counts]) -> Artifact:
        """Build a stage's output that is not there; see `stage`."""
        home = self.root.child(wanted.key)
        attempt = f"attempt-{uuid.uuid4().hex[:8]}"
        folder = home.child(attempt).create()
        note = home.child(f"{attempt}{BEGUN}")
        started = time.monotonic()
        try:
            note.write_json("inputs.json", wanted.inputs)
            counts = build(folder)
            manifest = wanted.manifest(attempt, counts, round(time.monotonic() - started, 3))
            home.write_json("manifest.json", asdict(manifest))
            note.delete()
        except BaseException:
            _remove_quietly(home, folder, note)
            raise
        return Artifact(wanted.key, folder, manifest)

    def ancestry(self, artifact: Artifact) -> dict[str, dict[str, Any]]:
        """Return the manifests of an artifact and of everything that it was made from."""
        known = {artifact.key: asdict(artifact.manifest)}
        for key in artifact.manifest.inputs.values():
            parent = self.find(key) if "/" in key else None
            if parent:
                known |= self.ancestry(parent)
        return known


def _remove_quietly(home: Folder, *folders: Folder) -> None:
    """Remove a failed attempt, and its home if that held nothing else; never mask the cause."""
    try:
        for folder in folders:
            folder.delete()
        filesystem, path = home.filesystem()
        if isinstance(filesystem, pafs.LocalFileSystem) and not any(Path(path).iterdir()):
            shutil.rmtree(path, ignore_errors=True)
    except (OSError, ItemeseError):
        return
