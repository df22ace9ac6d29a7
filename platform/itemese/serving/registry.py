"""A registry of bundles: folders named by their digest, and one file that names those that answer.

    <registry>/registry.json    champion, previous and canary, by their digests, and the share
    <registry>/<digest>/        a bundle, copied here when it was first promoted

Replicas poll the file and switch by themselves, so promoting is writing one small file.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow.fs as pafs

from itemese.core.artifacts import Folder
from itemese.core.bundle import copy_bundle, find_bundle, verify_bundle
from itemese.core.errors import ArtifactError, ConfigError
from itemese.serving.engine import Recommender

FILE = "registry.json"
KEEP = 5
"""Bundles that stay in a registry beside those that its file names."""


@dataclass(frozen=True)
class Registry:
    """Contents of ``registry.json``.

    Attributes:
        champion: Digest of the bundle that answers.
        previous: Digest of the champion before it, for `rollback`.
        canary: Digest of a bundle that answers a share of the requests, or None.
        share: Share of the requests that the canary answers, 0..1.
    """

    champion: str
    previous: str | None = None
    canary: str | None = None
    share: float = 0.0


def is_registry(folder: Folder) -> bool:
    """Return whether the folder is a registry, and not a bundle."""
    return folder.exists(FILE)


def read_registry(folder: Folder) -> Registry:
    """Read the file.

    Raises:
        ArtifactError: It is missing or torn.
    """
    values = folder.read_json(FILE)
    try:
        return Registry(**values)
    except TypeError as error:
        message = f"`{folder.uri}/{FILE}` must be written by `jobs/promote.py`; got {error}."
        raise ArtifactError(message) from None


def promote(folder: Folder, bundle: str | Path, *, keep: int = KEEP) -> Registry:
    """Make a bundle the champion; a canary ends.

    The bundle is loaded, tested and copied before the file changes.

    Args:
        folder: The registry.
        bundle: URI of the bundle, or of a study with a winner.
        keep: How many bundles stay beside those that the registry names.

    Raises:
        ArtifactError: It is torn or does not answer.
    """
    digest = _add(folder, find_bundle(bundle))
    before = read_registry(folder) if is_registry(folder) else None
    previous = before.champion if before else None
    if before and digest == before.champion:
        previous = before.previous
    now = _write(folder, Registry(digest, previous))
    prune(folder, keep)
    return now


def rollback(folder: Folder) -> Registry:
    """End the canary; without one make the previous champion the champion again.

    Raises:
        ConfigError: There is neither a canary nor a previous champion.
    """
    now = read_registry(folder)
    if now.canary is not None:
        return _write(folder, replace(now, canary=None, share=0.0))
    if now.previous is None:
        message = (
            f"`registry` must have had another champion; got {folder.uri} with one promotion only. "
            "Promote another bundle."
        )
        raise ConfigError(message)
    return _write(folder, Registry(now.previous, now.champion))


def try_out(folder: Folder, bundle: str | Path, share: float) -> Registry:
    """Let a bundle answer a share of the requests beside the champion.

    Raises:
        ArtifactError: It is torn or does not answer.
        ConfigError: The share is not between 0 and 1.
    """
    if not 0 < share < 1:
        message = f"`canary` must be a share between 0 and 1; got {share}. Try .05."
        raise ConfigError(message)
    now = read_registry(folder)
    return _write(folder, replace(now, canary=_add(folder, find_bundle(bundle)), share=share))


def prune(folder: Folder, keep: int) -> list[str]:
    """Delete old bundles; return their digests.

    Args:
        folder: The registry.
        keep: How many of the newest stay, beside those that the registry names. A replica that
            answers from a deleted bundle goes on, as it holds it in memory.
    """
    now = read_registry(folder)
    named = {now.champion, now.previous, now.canary}
    filesystem, root = folder.filesystem()
    found = filesystem.get_file_info(pafs.FileSelector(root))
    rest = []
    for entry in found:
        if entry.type is not pafs.FileType.Directory or entry.base_name in named:
            continue
        record = filesystem.get_file_info(f"{entry.path}/bundle.json")
        if record.type is pafs.FileType.File:  # without it the bundle is not complete
            rest.append((record.mtime_ns or 0, entry.base_name))
    old = [digest for _, digest in sorted(rest, reverse=True)[keep:]]
    for digest in old:
        folder.child(digest).delete()
    return old


def _add(folder: Folder, bundle: Folder) -> str:
    """Test a bundle, copy it into the registry unless it is there, and return its digest."""
    digest = Recommender.load(bundle.uri).bundle.digest
    place = folder.child(digest)
    if not _holds(place, digest):
        copy_bundle(bundle, place)
    return digest


def _holds(place: Folder, digest: str) -> bool:
    """Return whether a folder holds the whole bundle of that digest."""
    try:
        return bool(verify_bundle(place)["digest"] == digest)
    except ArtifactError:
        return False


def _write(folder: Folder, registry: Registry) -> Registry:
    folder.write_json(FILE, asdict(registry))
    return registry
