"""The `knowledge` section: who writes which texts of the items."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from itemese.core.config import Config


class KnowledgeConfig(Config):
    """Texts that are written of every item, each by a prompt template.

    Attributes:
        writer: ``template`` fills in words of the items' own columns and knows nothing else;
            ``model`` asks a language model.
        model: Its Hugging Face name or a local folder; read by ``writer: model``.
        texts: Names of templates; each becomes a column of that name.
        columns: Columns of the items that a prompt shows; absent ones are passed over.
        max_new_tokens: Longest text of a model, tokens.
        max_prompt_tokens: Longer prompts are cut at their beginning.
        batch_size: Prompts a model reads at once.
        device: ``auto`` takes the cluster's GPUs where it has any, else CPUs.
        max_actors: Most copies of the model.
    """

    writer: Literal["template", "model"] = "template"
    model: str | None = Field(default=None, min_length=1)
    texts: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], ...] = Field(
        default=("intention",), min_length=1
    )
    columns: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("title", "brand", "categories", "genres"), min_length=1
    )
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

    @property
    def author(self) -> str:
        """Who wrote, for caches and reports: the model's name, or ``template``."""
        return self.model or "template"
