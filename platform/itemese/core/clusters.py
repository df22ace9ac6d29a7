"""Groups of items or users that share what is written of them.

Letters: N entities, C clusters, M members.
"""

from dataclasses import dataclass

import numpy as np

from itemese.core.artifacts import Folder


@dataclass(frozen=True)
class Clusters:
    """Which cluster each entity belongs to.

    Attributes:
        entity: ``item`` or ``user``.
        cluster [N] int64: The cluster of each; -1 for what nothing is known of.
        typical [C, M] int64: Rows of the members nearest to each cluster's centre, nearest first;
            -1 where there are fewer.
    """

    entity: str
    cluster: np.ndarray
    typical: np.ndarray

    def write(self, folder: Folder) -> None:
        """Write ``<entity>.safetensors``."""
        tensors = {"cluster": self.cluster, "typical": self.typical}
        folder.write_tensors(f"{self.entity}.safetensors", tensors)

    @classmethod
    def read(cls, folder: Folder, entity: str) -> "Clusters | None":
        """Read what `write` wrote; None if there are no clusters of that entity."""
        name = f"{entity}.safetensors"
        if not folder.exists(name):
            return None
        tensors = folder.read_tensors(name)
        return cls(entity, tensors["cluster"].numpy(), tensors["typical"].numpy())
