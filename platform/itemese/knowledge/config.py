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
        item_columns: Columns of the items that a prompt shows of each event; None shows those that
            prompts of items show.
        max_events: Newest events that a prompt shows.
        share: Of a user's training events, the oldest, that a prompt may show; what is given of a
            held-out user is shown whole. A model that is trained on events which its users' prompts
            showed has seen its targets: fields of knowledge (REKI) leave those targets out, other
            methods do not.
        cutoff: Newest event that a prompt may show, seconds UTC; None for no limit.
    """

    texts: tuple[TextName, ...] = Field(default=("preference",), min_length=1)
    columns: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    item_columns: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    max_events: int = Field(default=20, ge=1, le=1000)
    share: float = Field(default=1.0, gt=0, le=1)
    cutoff: int | None = None


class ClustersConfig(Config):
    """How many groups of alike items and users share their texts.

    Items are clustered by their `embeddings`, users by their `user_embeddings`.

    Attributes:
        items: Clusters of items, at most; None writes of every item.
        users: Clusters of users, at most; None writes of every user.
    """

    items: int | None = Field(default=None, ge=1)
    users: int | None = Field(default=None, ge=1)


class EndpointConfig(Config):
    """A server that speaks OpenAI's chat completions: vLLM, llama.cpp, or a hosted one.

    Its key is read from the environment variable ITEMESE_LLM_KEY and is written nowhere.

    Attributes:
        url: Up to and without ``/chat/completions``, such as ``http://localhost:8000/v1``.
        concurrency: Most requests at once.
        requests_per_minute: Requests are spread so that no minute has more; None has no limit.
        timeout_s: Longest wait for an answer.
        retries: Further attempts where the server is busy, fails or does not answer.
        max_tokens: Most tokens of prompts and answers that one run may take, None for no limit.
            Prompts under way, and those whose answer was lost, are counted at their longest, so it
            is never passed.
        price_per_million: What a million tokens cost, of prompts and of answers, any currency.
    """

    url: str = Field(pattern=r"^https?://[^\s/?#]+[^\s?#]*$")
    concurrency: int = Field(default=8, ge=1, le=256)
    requests_per_minute: float | None = Field(default=None, gt=0)
    timeout_s: float = Field(default=60.0, gt=0)
    retries: int = Field(default=5, ge=0)
    max_tokens: int | None = Field(default=None, ge=0)
    price_per_million: tuple[float, float] = (0.0, 0.0)


class KnowledgeConfig(Config):
    """Texts that are written of every item, each by a prompt template, and of users if asked.

    Attributes:
        writer: ``template`` fills in words of the items' own columns and knows nothing else;
            ``model`` asks a language model, ``endpoint`` one behind HTTP.
        model: Its name, as `find_pretrained` or the endpoint reads it.
        endpoint: Of ``writer: endpoint``.
        texts: Names of templates of items; each becomes a text of that name.
        domain: What the items are, one of ``factors.yaml``: which factors `factors` and
            `factor_taste` ask about.
        columns: Columns of the items that a prompt shows, of an item or within a user's history;
            absent ones are passed over.
        users: Texts of users; None writes none.
        clusters: One text for each cluster of items or users, by the template
            ``<text>.cluster.jinja``; None writes of each by itself.
        lines: What is kept of an answer: its ``first`` line, or ``all`` of it.
        max_new_tokens: Longest text of a model, tokens.
        max_prompt_tokens: Longer prompts lose their oldest events, and then their beginning; those
            of an endpoint are left as they are.
        temperature: 0 takes the likeliest token; above, tokens are drawn.
        top_p: Share of the probability that is drawn from, the likeliest tokens first.
        seed: Of the draws: the same for a prompt in any batch.
        batch_size: Prompts a model reads at once.
        dtype: Of a model's weights; ``bf16`` is faster where the processor has it, and its texts
            differ from those of ``fp32``.
        device: ``auto`` takes the cluster's GPUs where it has any, else CPUs.
        max_actors: Most copies of the model.
    """

    writer: Literal["template", "model", "endpoint"] = "template"
    model: str | None = Field(default=None, min_length=1)
    endpoint: EndpointConfig | None = None
    texts: tuple[TextName, ...] = ("intention",)
    domain: str | None = None
    columns: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("title", "brand", "categories", "genres"), min_length=1
    )
    users: UserTextsConfig | None = None
    clusters: ClustersConfig | None = None
    lines: Literal["first", "all"] = "first"
    max_new_tokens: int = Field(default=40, ge=1, le=2048)
    max_prompt_tokens: int = Field(default=512, ge=16, le=32_768)
    temperature: float = Field(default=0.0, ge=0, le=5)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=64, ge=1)
    dtype: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_actors: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _a_model_writes_or_none_is_named(self) -> Self:
        if (self.writer != "template") != (self.model is not None):
            message = "a `model` with `writer: model` or `endpoint`, and none with `template`"
            raise ValueError(message)
        if (self.writer == "endpoint") != (self.endpoint is not None):
            message = "an `endpoint` with `writer: endpoint`, and none with another writer"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _something_is_written(self) -> Self:
        if not self.texts and self.users is None:
            message = "`texts` of items, or `users`"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _clusters_have_texts(self) -> Self:
        if self.clusters and self.clusters.users and self.users is None:
            message = "`users` with `clusters.users`, as a cluster's text is that of its members"
            raise ValueError(message)
        return self

    @property
    def template_names(self) -> tuple[str, ...]:
        """Templates of all texts that are written, of items and of users."""
        groups = self.clusters or ClustersConfig()
        items = [f"{text}.cluster" if groups.items else text for text in self.texts]
        users = [f"{text}.cluster" if groups.users else text for text in self.user_texts]
        return (*items, *users)

    @property
    def user_texts(self) -> tuple[TextName, ...]:
        """Names of the texts of users."""
        return self.users.texts if self.users else ()

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
