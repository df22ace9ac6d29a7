"""Trained recipes that another method is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from itemese.core.artifacts import Folder

READS = Callable[[str, Folder], Any]
"""Reads the artifact of a need from its folder."""


@dataclass(frozen=True)
class Part:
    """One trained recipe.

    Attributes:
        method_config: Its ``method`` section, with all defaults.
        artifacts: What the method answers with, by need; each has ``write(folder)``.
        state: Tensors of its module; empty in a bundle, where the whole model holds them.
    """

    method_config: Mapping[str, Any]
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """Trained recipes by name.

    Attributes:
        parts: At least one.
    """

    parts: Mapping[str, Part]

    def validate(self, num_items: int) -> None:
        """Raise DataError unless every artifact fits a catalogue of that size."""
        for part in self.parts.values():
            for artifact in part.artifacts.values():
                artifact.validate(num_items)

    def write(self, folder: Folder) -> None:
        """Write ``parts.json`` and each part's artifacts to ``<part>/<need>/``; no weights."""
        known = {
            name: {"method": dict(part.method_config), "needs": sorted(part.artifacts)}
            for name, part in self.parts.items()
        }
        for name, part in self.parts.items():
            for need, artifact in part.artifacts.items():
                artifact.write(folder.child(f"{name}/{need}"))
        folder.write_json("parts.json", known)

    def write_all(self, folder: Folder) -> None:
        """Write the same, and the weights to ``<part>/model.safetensors``."""
        for name, part in self.parts.items():
            folder.child(name).write_tensors("model.safetensors", part.state)
        self.write(folder)

    @classmethod
    def read(cls, folder: Folder, reads: READS) -> "Parts":
        """Read what `write` or `write_all` wrote."""
        found = {}
        for name, known in folder.read_json("parts.json").items():
            place = folder.child(name)
            artifacts = {need: reads(need, place.child(need)) for need in known["needs"]}
            weights = place.exists("model.safetensors")
            state = place.read_tensors("model.safetensors") if weights else {}
            found[name] = Part(known["method"], artifacts, state)
        return cls(found)
