"""The store of a study: trials that agree on a stage build it once, also while side by side."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import ray

from itemese.core import cluster
from itemese.core.artifacts import Artifact, Counts, Folder, Store, Wanted
from itemese.core.config import digest_of
from itemese.core.errors import ArtifactError

POLL_SECONDS = 0.1
"""Between two looks at a claim that another trial holds."""


class SharedStore(Store):
    """A store whose stages are built by one trial while others wait, and counted.

    On a local disk (or NFS) a builder claims the stage by a lock on a file, elsewhere by the name
    of an actor in the Ray cluster. Either is released when the builder's process ends, however it
    ends, and the next one waiting builds.

    Attributes:
        built: Keys of outputs that this store built, each once.
        reused: Keys of outputs that were already there, each once.
    """

    def __init__(self, location: str | Path) -> None:
        super().__init__(location)
        self.built: list[str] = []
        self.reused: list[str] = []

    def stage(self, name: str, **given: Any) -> Artifact:
        """Return the stage's output as `Store.stage` does, and count it."""
        artifact = super().stage(name, **given)
        if artifact.key not in (*self.built, *self.reused):
            (self.reused if artifact.reused else self.built).append(artifact.key)
        return artifact

    def make(self, wanted: Wanted, build: Callable[[Folder], Counts]) -> Artifact:
        """Build it, unless another process that holds the stage's lock has built it meanwhile."""
        with claim(self.root.child("claims"), f"{wanted.key.replace('/', '-')}.lock"):
            return self.find(wanted.key) or super().make(wanted, build)


@contextmanager
def claim(folder: Folder, name: str) -> Iterator[None]:
    """Hold the lock `name` of a folder inside; wait while another process holds it."""
    with locks_of(folder) as lock:
        while not lock(name):
            time.sleep(POLL_SECONDS)
        yield


@contextmanager
def locks_of(folder: Folder) -> Iterator[Callable[[str], bool]]:
    """Return what takes a lock of a folder by its name and says whether it is ours.

    What was taken is released at the end of the block, or when this process ends.

    Raises:
        ArtifactError: The folder cannot be written.
    """
    filesystem, path = folder.filesystem()
    local = isinstance(filesystem, pafs.LocalFileSystem)
    if local:
        folder.create()
    with ExitStack() as held:

        def lock(name: str) -> bool:
            trial = ExitStack()
            chosen = _file(Path(path) / name) if local else _named_actor(f"{folder.uri}/{name}")
            if trial.enter_context(chosen):
                held.enter_context(trial)
                return True
            trial.close()
            return False

        yield lock


@contextmanager
def _named_actor(name: str) -> Iterator[bool]:
    """Take a name in the cluster, which goes with this process; return whether it was free."""
    cluster.connect()
    place = {"name": f"lock-{digest_of(name)}", "namespace": "itemese", "num_cpus": 0}
    try:
        holder = ray.remote(_Holder).options(**place).remote()
    except ValueError:
        yield False
        return
    try:
        ray.get(holder.ready.remote())
        yield True
    finally:
        ray.kill(holder)


class _Holder:
    """The actor whose name is the lock."""

    def ready(self) -> bool:
        """Answer once it is there."""
        return True


@contextmanager
def _file(file: Path) -> Iterator[bool]:
    """Lock a file for as long as it is open; return whether no other process has.

    Raises:
        ArtifactError: It cannot be written.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        message = f"`{file}` could not be written: {error}. Choose another --storage."
        raise ArtifactError(message) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
