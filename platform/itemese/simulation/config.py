"""Settings of the simulation: how many, how long, when, and what drives the next item."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from itemese.core.config import Config, digest_of
from itemese.simulation.declarations import check_shape, load_network

MOST_USERS = 10**9
"""A user's number has nine digits."""


class MixtureConfig(Config):
    """What drives the next item; the three are relative and are normalised to sum to 1.

    Attributes:
        taste: The user's own distribution over genres, times popularity within the genre.
        transition: A planted successor of the last item.
        popularity: Popularity alone.
    """

    taste: float = Field(default=0.45, ge=0)
    transition: float = Field(default=0.45, ge=0)
    popularity: float = Field(default=0.10, ge=0)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.taste + self.popularity <= 0:
            # The first event of a history has no last item to follow.
            message = "a mixture where taste + popularity > 0"
            raise ValueError(message)
        return self


class LengthsConfig(Config):
    """How many events a user has: skewed, between two bounds, with an exact mean.

    Attributes:
        distribution: Shape of the excess over `min`.
        mean: Mean number of events of a user, exact after capping at `max`.
        sigma: Spread of a lognormal excess in log units; the larger, the longer the tail.
        min: Fewest events of a user.
        max: Most events of a user.
    """

    distribution: Literal["lognormal", "geometric"] = "lognormal"
    mean: float = Field(default=20.0, ge=1)
    sigma: float = Field(default=1.0, gt=0, le=4)
    min: int = Field(default=5, ge=1)
    max: int = Field(default=200, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        fixed = self.min == self.mean == self.max
        if not fixed and not self.min < self.mean < self.max:
            message = f"such that min < mean < max (or all equal); got {self.min} {self.mean}"
            message += f" {self.max}"
            raise ValueError(message)
        return self


class ClockConfig(Config):
    """When events happen.

    Attributes:
        start: First second, UTC.
        span_seconds: Length of the whole log, seconds.
        active_share: Mean share of the span between a user's first and last event.
        ties: Share of events (first ones apart) that bear their predecessor's second.
    """

    start: int = Field(default=1_577_836_800, ge=0)
    span_seconds: int = Field(default=365 * 86_400, ge=1)
    active_share: float = Field(default=0.3, gt=0, le=0.6)
    ties: float = Field(default=0.0, ge=0, le=0.95)


class TastesConfig(Config):
    """How tastes change and return.

    Attributes:
        count: Tastes of a user. Those after the first are drawn as other users' are.
        period: Events after which the next taste begins; after the last the first returns.
    """

    count: int = Field(default=1, ge=1, le=1_000)
    period: int = Field(default=100, ge=1)

    def turn(self, time: int) -> int:
        """Return which taste drives event number `time`."""
        return time // self.period % self.count

    def turns(self, events: int) -> int:
        """Return how many tastes drive the first `events` events of a user, at least 1."""
        return min(self.count, max(0, events - 1) // self.period + 1)


class SimulationConfig(Config):
    """A simulated world.

    Attributes:
        num_users: Users, numbered from 0; the expected number of events is
            ``num_users * lengths.mean``.
        num_items: Items, numbered from 0.
        network: The Bayesian relation network: name of a packaged one, path or URI of a YAML
            file, or the mapping itself.
        mixture: What drives the next item.
        tastes: How a user's taste changes.
        lengths: Events a user.
        clock: Time of the events.
        repeats: Whether a user may have the same item twice. If not, the next-item distribution
            is renormalised over the items not yet seen.
    """

    num_users: int = Field(default=2_000, ge=1, le=MOST_USERS - 1)
    num_items: int = Field(default=1_000, ge=2, le=10_000_000)
    network: str | dict[str, Any] = "shop"
    mixture: MixtureConfig = MixtureConfig()
    tastes: TastesConfig = TastesConfig()
    lengths: LengthsConfig = LengthsConfig()
    clock: ClockConfig = ClockConfig()
    repeats: bool = False

    @field_validator("network")
    @classmethod
    def _well_formed(cls, network: str | dict[str, Any]) -> str | dict[str, Any]:
        check_shape(network)
        return network

    @model_validator(mode="after")
    def _room_enough(self) -> Self:
        if not self.repeats and self.lengths.max * 2 > self.num_items:
            message = f"such that lengths.max <= num_items / 2 = {self.num_items // 2} when "
            message += f"repeats is false; got lengths.max {self.lengths.max}"
            raise ValueError(message)
        if self.clock.span_seconds * self.clock.active_share < 4 * self.lengths.max:
            message = "such that clock.span_seconds * clock.active_share >= 4 * lengths.max, as "
            message += f"each event needs its second; got {self.clock.span_seconds} seconds"
            raise ValueError(message)
        return self

    def resolved(self) -> "SimulationConfig":
        """Return the same settings with the network inside, so that no file is needed later."""
        return self.model_copy(update={"network": load_network(self.network)})

    def fingerprint(self, seed: int) -> str:
        """Return a hash of everything that decides the simulated log, the network included."""
        values = self.resolved().model_dump(mode="json")
        # The order of entries decides the order of values, so it belongs to the hash.
        network = repr(values.pop("network"))
        return digest_of([values, network, seed])
