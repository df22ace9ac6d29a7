"""An artifact from outside: for each item the time of its newest training event."""

import numpy as np
from pydantic import Field

from itemese.core.artifacts import Counts, Folder
from itemese.core.config import Config
from itemese.core.schema import Catalog, Histories, Split
from itemese.core.stages import Reader, StageSpec, Surroundings


class LastSeenConfig(Config):
    """Settings: `offset` seconds are added to each time."""

    offset: int = Field(default=0, ge=0)


class LastSeen:
    """``time_of [I] int64``: seconds; 0 without a training event."""

    def __init__(self, time_of: np.ndarray) -> None:
        self.time_of = time_of

    def validate(self, num_items: int) -> None:
        """Require a time for each item."""
        assert self.time_of.shape == (num_items,)

    def write(self, folder: Folder) -> None:
        """Write ``last_seen.safetensors``."""
        folder.write_tensors("last_seen.safetensors", {"time_of": self.time_of})

    @classmethod
    def read(cls, folder: Folder) -> "LastSeen":
        """Read what `write` wrote."""
        return cls(folder.read_tensors("last_seen.safetensors")["time_of"].numpy())


def build(
    config: LastSeenConfig, inputs: dict[str, Folder], around: Surroundings, out: Folder
) -> Counts:
    """Take the newest training time of each item."""
    time_of = np.zeros(Catalog.read(inputs["sequences"]).num_items, np.int64)
    for block in Histories.stream(inputs["sequences"]):
        train = block.only(Split.TRAIN)
        np.maximum.at(time_of, train.item_index, train.timestamp)
    LastSeen(time_of + config.offset).write(out)
    return {"items_seen": int((time_of > 0).sum())}


STAGE = StageSpec(
    name="last_seen",
    version=1,
    settings=LastSeenConfig,
    inputs=("sequences",),
    build=build,
    reader=Reader(LastSeen.read, answers=True),
)
