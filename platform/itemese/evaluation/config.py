"""Settings of the evaluation."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from itemese.core.config import Config

Positive = Annotated[int, Field(ge=1)]


class EvaluationConfig(Config):
    """What is asked of a method, and how its answers become numbers.

    Attributes:
        task: What is asked: a file of ``evaluation/tasks/``, or the dotted path of a module
            elsewhere; None takes the method's own task. It does not change the training.
        targets: With a temporal split or one by user, whether ``all`` held-out events are requests,
            each with what came before it, or only each user's ``first``. Part of the protocol.
        max_users: Users who are asked, drawn by the hash of their ids; None asks all. Part of the
            protocol.
        num_offered: Items offered to choose from, the target among them (task ``choice``).
        cutoffs: List lengths of the metrics, rising; the longest is what a method is asked for.
        exclude_seen: Whether items of the user's history are taken out of the candidates. The
            result holds both figures; this one chooses which is called ``test/...``.
        refit: Whether the model that is tested and served is trained once more, on training and
            validation events, for the steps that validation selected. Part of the protocol:
            results that differ in it are not compared.
        click_negatives: Non-clicks drawn for each target of a method that predicts clicks, where
            events have no labels (``sequences.clicked_at``). Part of the protocol too.
        batch_size: Requests answered at once.
        bootstrap_samples: Resamples of the users behind each interval.
        confidence: Coverage of the intervals.
        head_share: Share of the items, most often trained on first, that count as head.
        cold_max_train_count: A target with at most so many training events is cold; one
            with none is both cold and unseen.
        history_bins: Shortest history (events) of each slice but the first, rising.
    """

    task: str | None = None
    targets: Literal["all", "first"] = "all"
    max_users: int | None = Field(default=None, ge=1)
    num_offered: int = Field(default=20, ge=2)
    cutoffs: tuple[Positive, ...] = (5, 10, 20)
    exclude_seen: bool = True
    refit: bool = False
    click_negatives: int = Field(default=1, ge=1)
    batch_size: int = Field(default=256, ge=1)
    bootstrap_samples: int = Field(default=1000, ge=100)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    head_share: float = Field(default=0.2, gt=0, lt=1)
    cold_max_train_count: int = Field(default=5, ge=0)
    history_bins: tuple[Annotated[int, Field(ge=2)], ...] = (10, 50)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name in ("cutoffs", "history_bins"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                message = f"a section whose `{name}` rise without repeats"
                raise ValueError(message)
        if not self.cutoffs:
            message = "a section whose `cutoffs` hold at least one list length"
            raise ValueError(message)
        return self

    @property
    def longest_list(self) -> int:
        """The largest cutoff: items asked of a method for each request."""
        return self.cutoffs[-1]
