"""Configuration of the requests stage."""

from typing import Literal

from pydantic import Field

from itemese.core.config import Config


class RequestsConfig(Config):
    """What is asked of a model.

    Attributes:
        builder: File of this folder, or dotted path of a module elsewhere.
        targets: With a temporal split or one by user ``all`` held-out events are requests, each
            with what came before it, or only each user's ``first``. Leaving one out gives one
            either way.
        num_drawn: Items drawn beside each target, for builders that draw.
    """

    builder: str
    targets: Literal["all", "first"] = "all"
    num_drawn: int = Field(default=0, ge=0)
