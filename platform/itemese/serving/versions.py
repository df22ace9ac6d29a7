"""The engines of one replica: the champion, and perhaps a canary beside it.

With a registry, a thread polls its file and loads a new version while the old one goes on. The
switch is one assignment, and a request keeps the engine that it began with.
"""

import logging
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError
from itemese.serving.engine import Recommender
from itemese.serving.query import QueryError
from itemese.serving.registry import Registry, is_registry, read_registry

_LOG = logging.getLogger(__name__)

_MOST_SECONDS = 60.0
"""Longest time until a version that does not load is tried again."""


@dataclass(frozen=True)
class Serving:
    """The engines that answer now.

    Attributes:
        champion: Answers the requests that the canary does not.
        canary: Answers a share of the requests, or None.
        share: That share, 0..1.
    """

    champion: Recommender
    canary: Recommender | None = None
    share: float = 0.0

    def engine(self, key: str, version: str | None = None) -> Recommender:
        """Return the engine for the requests of a key; the same until the registry changes.

        Args:
            key: The user_id, or the request_id where no user is named.
            version: ``champion`` or ``canary``, if the request names one.

        Raises:
            QueryError: The request names the canary, and there is none.
        """
        if version == "canary" and self.canary is None:
            message = (
                "`version` must be 'champion' while there is no canary; got 'canary'. Leave it out."
            )
            raise QueryError(message)
        if version is not None:
            return self.canary if version == "canary" and self.canary else self.champion
        if self.canary is not None and zlib.crc32(key.encode()) < self.share * 2**32:
            return self.canary
        return self.champion

    def engines(self) -> list[Recommender]:
        """Return champion and canary."""
        return [self.champion, *([self.canary] if self.canary else [])]


class Versions:
    """Follows a registry, or holds one bundle.

    Attributes:
        now: The engines that answer.
        lacking: Whether the registry names a version that does not load, so that an older one
            answers.
    """

    def __init__(self, uri: str, load: Callable[[str], Recommender]) -> None:
        """Load the current version.

        Args:
            uri: Of a bundle or of a registry.
            load: Reads a bundle and tests it.

        Raises:
            ArtifactError: It does not load.
        """
        self._load = load
        self._folder = Folder.at(uri)
        self._stop = threading.Event()
        self._followed: Registry | None = None
        self.lacking = False
        if is_registry(self._folder):
            self._followed = read_registry(self._folder)
            self.now = self._serving(self._followed, {})
        else:
            self.now = Serving(load(uri))

    def follow(self, seconds: float) -> None:
        """Poll the registry at this interval from now on; without a registry do nothing."""
        if self._followed is None:
            return
        thread = threading.Thread(target=self._follow, args=(seconds,), daemon=True)
        thread.name = "registry"
        thread.start()

    def close(self) -> None:
        """Stop polling."""
        self._stop.set()

    def refresh(self) -> bool:
        """Switch to what the registry names; return whether that is new.

        A bundle that does not load changes nothing: the engines that answer go on.
        """
        return self._switch(read_registry(self._folder))

    def _switch(self, wanted: Registry) -> bool:
        """Serve what a registry says; return whether that is new."""
        if wanted != self._followed:
            self.lacking = True
            known = {engine.bundle.digest: engine for engine in self.now.engines()}
            self.now = self._serving(wanted, known)
            _LOG.warning("champion %s, canary %s", wanted.champion, wanted.canary)
        changed, self._followed, self.lacking = wanted != self._followed, wanted, False
        return changed

    def _follow(self, seconds: float) -> None:
        """Poll; a version that does not load is tried again at growing intervals."""
        failed: Registry | None = None
        logged, pause, again = "", seconds, 0.0
        while not self._stop.wait(seconds):
            wanted: Registry | None = None
            try:
                wanted = read_registry(self._folder)
                if wanted == failed and time.monotonic() < again:
                    continue
                self._switch(wanted)
                failed, logged = None, ""
            except Exception as error:  # noqa: BLE001  (whatever it is, the current engines go on)
                if wanted is not None:
                    pause = min(2 * pause, _MOST_SECONDS) if wanted == failed else seconds
                    failed, again = wanted, time.monotonic() + pause
                cause = f"{wanted} {error!r}"
                if cause != logged:
                    _LOG.exception("the registry names a version that cannot be served")
                logged = cause

    def _serving(self, wanted: Registry, known: dict[str, Recommender]) -> Serving:
        """Return the engines that a registry names, loading those that are not `known`."""

        def engine(digest: str) -> Recommender:
            if digest in known:
                return known[digest]
            place = self._folder.child(digest)
            found = self._load(place.uri)
            if found.bundle.digest != digest:
                message = (
                    f"`registry` must keep each bundle under its digest; got {found.bundle.digest} "
                    f"in {place.uri!r}. Promote the bundle again."
                )
                raise ArtifactError(message)
            return found

        canary = engine(wanted.canary) if wanted.canary else None
        return Serving(engine(wanted.champion), canary, wanted.share)
