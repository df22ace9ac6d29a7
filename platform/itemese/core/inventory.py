"""What a storage holds, what of it is still needed, and how the rest is deleted."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import pyarrow.fs as pafs

from itemese.core.artifacts import BEGUN, Folder, Manifest
from itemese.core.errors import ConfigError

WORKING = timedelta(hours=1)
"""A checkpoint or unfinished attempt that was written to since then belongs to a run that works."""

LEFT = timedelta(days=7)
"""An attempt that began longer ago and is unfinished was left by a run that died."""

_MANIFEST = re.compile(r"(?P<key>[\w.]+/[0-9a-f]{16})/manifest\.json")
_ATTEMPT = re.compile(r"(?P<key>[\w.]+/[0-9a-f]{16})/(?P<attempt>attempt-[0-9a-f]{8}(\.begun)?)/.+")
_CHECKPOINT = re.compile(r"(?P<place>checkpoints/[0-9a-f]{16})/.+")
_BUNDLE = "ancestry.json"


@dataclass(frozen=True)
class Held:
    """One finished artifact.

    Attributes:
        key: ``<stage>/<hash>``.
        manifest: How it came to be.
        size: Bytes of all its files.
    """

    key: str
    manifest: Manifest
    size: int

    @property
    def created(self) -> datetime:
        """When it was finished, UTC."""
        return datetime.fromisoformat(self.manifest.created)


class Inventory:
    """The files of a storage at one moment."""

    def __init__(self, root: Folder) -> None:
        """List the storage once; on object stores that is one request a thousand files."""
        self.root = root
        filesystem, self._path = root.filesystem()
        selector = pafs.FileSelector(self._path, recursive=True, allow_not_found=True)
        files = filesystem.get_file_info(selector)
        start = len(self._path.rstrip("/")) + 1
        self.files = {f.path[start:]: f for f in files if f.type == pafs.FileType.File}

    @cached_property
    def artifacts(self) -> dict[str, Held]:
        """Finished artifacts by key, the newest first."""
        found = []
        for name in self.files:
            match = _MANIFEST.fullmatch(name)
            if match:
                key = match["key"]
                manifest = Manifest(**self.root.child(key).read_json("manifest.json"))
                found.append(Held(key, manifest, self.size_of(key)))
        return {one.key: one for one in sorted(found, key=lambda h: h.created, reverse=True)}

    def size_of(self, place: str) -> int:
        """Return the bytes of all files under a folder of the storage."""
        return sum(f.size for name, f in self.files.items() if name.startswith(f"{place}/"))

    def needed_by(self, keys: Iterable[str]) -> set[str]:
        """Return the keys with those of everything that these artifacts were made from."""
        found: set[str] = set()
        waiting = list(keys)
        while waiting:
            key = waiting.pop()
            if key in self.artifacts and key not in found:
                found.add(key)
                waiting += self.artifacts[key].manifest.inputs.values()
        return found

    def bundled(self) -> set[str]:
        """Return keys that a bundle in the storage names: those of studies and registries too."""
        found: set[str] = set()
        for name in self.files:
            folder, _, last = name.rpartition("/")
            if last == _BUNDLE:
                found |= set(self.root.child(folder).read_json(_BUNDLE))
        return found

    def attempts(self) -> dict[str, datetime]:
        """Return folders of attempts that no manifest names, with their newest file's time."""
        found: dict[str, datetime] = {}
        for name, file in self.files.items():
            match = _ATTEMPT.fullmatch(name)
            if not match:
                continue
            held = self.artifacts.get(match["key"])
            if held is None or held.manifest.attempt != match["attempt"]:
                place = f"{match['key']}/{match['attempt']}"
                found[place] = max(found.get(place, _changed(file)), _changed(file))
        return found

    def checkpoints(self) -> dict[str, datetime]:
        """Return folders of checkpoints, with their newest file's time."""
        found: dict[str, datetime] = {}
        for name, file in self.files.items():
            match = _CHECKPOINT.fullmatch(name)
            if match:
                place = match["place"]
                found[place] = max(found.get(place, _changed(file)), _changed(file))
        return found

    def wanted(self, attempts: Mapping[str, datetime]) -> set[str]:
        """Return the keys that these attempts are being built from, as far as they noted them."""
        found: set[str] = set()
        for place in attempts:
            if place.endswith(BEGUN):
                found |= set(self.root.child(place).read_json("inputs.json").values())
        return found

    def unneeded(self, before: datetime) -> list[str]:
        """Return folders that may go: artifacts older than a time that nothing kept needs.

        Kept are newer artifacts, those that a bundle names, those that an attempt of the last week
        is being built from, and all that these were made from. Older attempts that were left
        unfinished and older checkpoints go too.

        Raises:
            ConfigError: A run works on the storage.
        """
        now = datetime.now(UTC)
        attempts, checkpoints = self.attempts(), self.checkpoints()
        writing = {**checkpoints, **attempts}
        working = [name for name, at in writing.items() if now - at < WORKING]
        if working:
            message = (
                f"`{self.root.uri}` must be at rest; got {working[0]!r}, which was written to "
                "within the last hour. Wait for the run to end."
            )
            raise ConfigError(message)
        newer = {key for key, held in self.artifacts.items() if held.created >= before}
        begun = {name: at for name, at in attempts.items() if now - at < LEFT}
        kept = self.needed_by(newer | self.bundled() | self.wanted(begun))
        left = [name for name in attempts if name not in begun]
        old = [name for name, at in checkpoints.items() if at < before]
        return sorted([*left, *old, *(key for key in self.artifacts if key not in kept)])


def _changed(file: pafs.FileInfo) -> datetime:
    """Return when a file was last written; now if the storage does not say."""
    return file.mtime or datetime.now(UTC)
