"""The `knowledge` section: who writes which texts of items and of users; and the graph."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from itemese.core.config import Config

TextName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class UserTextsConfig(Config):
    """Texts that are written of every user, from training events.

    Attributes:
        texts: Names of templates; each becomes a text of that name.
        columns: Columns of the log's user table that a prompt shows; absent ones are passed over.
        max_events: Newest events that a prompt shows.
        cutoff: Newest event that a prompt may show, seconds UTC; None allows all training events. A
            model that is trained on events which its users' prompts showed has seen its targets:
            set a cutoff before the events that it learns from.
    """

    texts: tuple[TextName, ...] = Field(default=("preference",), min_length=1)
    columns: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    max_events: int = Field(default=20, ge=1, le=1000)
    cutoff: int | None = None


class KnowledgeConfig(Config):
    """Texts that are written of every item, each by a prompt template, and of users if asked.

    Attributes:
        writer: ``template`` fills in words of the items' own columns and knows nothing else;
            ``model`` asks a language model.
        model: Its name, as `find_pretrained` reads it; read by ``writer: model``.
        texts: Names of templates of items; each becomes a text of that name.
        columns: Columns of the items that a prompt shows, of an item or within a user's history;
            absent ones are passed over.
        users: Texts of users; None writes none.
        max_new_tokens: Longest text of a model, tokens.
        max_prompt_tokens: Longer prompts are cut at their beginning.
        batch_size: Prompts a model reads at once.
        device: ``auto`` takes the cluster's GPUs where it has any, else CPUs.
        max_actors: Most copies of the model.
    """

    writer: Literal["template", "model"] = "template"
    model: str | None = Field(default=None, min_length=1)
    texts: tuple[TextName, ...] = ("intention",)
    columns: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("title", "brand", "categories", "genres"), min_length=1
    )
    users: UserTextsConfig | None = None
    max_new_tokens: int = Field(default=40, ge=1, le=2048)
    max_prompt_tokens: int = Field(default=512, ge=16, le=32_768)
    batch_size: int = Field(default=16, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_actors: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _a_model_writes_or_none_is_named(self) -> Self:
        if (self.writer == "model") != (self.model is not None):
            message = "a `model` with `writer: model`, and none with `writer: template`"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _something_is_written(self) -> Self:
        if not self.texts and self.users is None:
            message = "`texts` of items, or `users`"
            raise ValueError(message)
        return self

    @property
    def template_names(self) -> tuple[str, ...]:
        """All texts that are written, of items and of users."""
        return (*self.texts, *(self.users.texts if self.users else ()))

    @property
    def author(self) -> str:
        """Who wrote, for caches and reports: the model's name, or ``template``."""
        return self.model or "template"


class GraphConfig(Config):
    """Edges from training events: which users had which items, and which items follow another.

    Attributes:
        window: Largest distance of two events of a user that join their items.
        decay: A pair at distance d weighs ``decay ** (d - 1)``.
        max_neighbors: Heaviest edges of an item that are kept.
    """

    window: int = Field(default=3, ge=1, le=100)
    decay: float = Field(default=0.5, gt=0, le=1)
    max_neighbors: int = Field(default=50, ge=1)
