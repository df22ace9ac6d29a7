"""The store of a study: trials that agree on a stage build it once, also while side by side."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from itemese.artifacts import Artifact, Counts, Folder, Store
from itemese.config import Config, digest_of
from itemese.errors import ArtifactError

POLL_SECONDS = 0.1
"""Between two looks at a claim that another trial holds."""


class SharedStore(Store):
    """A store whose stages are built by one trial while others wait, and counted.

    On a local disk (or NFS) a builder claims the stage by a lock on a file. The system releases
    it when the builder's process ends, however it ends, and the next one waiting builds. An object
    store has no such lock: two trials may build the same there, and one of them counts.

    Attributes:
        built: Keys of outputs that this store built, each once.
        reused: Keys of outputs that were already there, each once.
    """

    def __init__(self, location: str | Path) -> None:
        super().__init__(location)
        self.built: list[str] = []
        self.reused: list[str] = []

    def stage(
        self,
        name: str,
        *,
        version: int,
        config: Config | None,
        inputs: Mapping[str, Artifact | str],
        build: Callable[[Folder], Counts],
    ) -> Artifact:
        """Return the stage's output as `Store.stage` does; wait for another's that is begun."""
        given: dict[str, Any] = {"version": version, "config": config, "inputs": inputs}
        key = stage_key(name, **given)
        artifact = self.find(key)
        if artifact is None:
            with claim(self.root.child("claims"), f"{key.replace('/', '-')}.lock"):
                artifact = super().stage(name, build=build, **given)
        if artifact.key not in (*self.built, *self.reused):
            (self.reused if artifact.reused else self.built).append(artifact.key)
        return artifact


def stage_key(
    name: str, *, version: int, config: Config | None, inputs: Mapping[str, Artifact | str]
) -> str:
    """Return the key under which `Store.stage` keeps an output."""
    roles = {role: i.key if isinstance(i, Artifact) else i for role, i in inputs.items()}
    values = config.model_dump(mode="json") if config else {}
    return f"{name}/{digest_of([name, version, values, roles])}"


@contextmanager
def claim(folder: Folder, name: str) -> Iterator[None]:
    """Hold the lock file `name` inside; wait while another process holds it.

    Where the filesystem is not local, nothing is held.
    """
    filesystem, path = folder.filesystem()
    if not isinstance(filesystem, pafs.LocalFileSystem):
        yield
        return
    folder.create()
    with open_lock(Path(path) / name) as descriptor:
        while not take(descriptor):
            time.sleep(POLL_SECONDS)
        yield


@contextmanager
def open_lock(file: Path) -> Iterator[int]:
    """Open a lock file; closing it releases whatever lock is on it.

    Raises:
        ArtifactError: It cannot be written.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        message = f"`{file}` could not be written: {error}. Choose another --storage."
        raise ArtifactError(message) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def take(descriptor: int) -> bool:
    """Lock an open file if nobody else has; return whether it is ours."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
