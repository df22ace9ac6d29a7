"""A trained language model in Hugging Face's form, out of a bundle."""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from itemese.backbones.adapters import export_language_model
from itemese.core.bundle import find_bundle, read_bundle
from itemese.core.errors import ConfigError
from itemese.methods.base import Inputs
from itemese.methods.lookup import method_of, parse_method_config
from itemese.prompts.tokenizer import TextTokenizer


def export_bundle(bundle: str, folder: str | Path, *, merged: bool = True) -> list[str]:
    """Write the language model that a bundle holds, for tools that know Hugging Face's form only.

    Besides what `export_language_model` writes: the tokenizer, where the method reads text;
    ``beside.safetensors``, every other tensor of the module (projector, ID vectors, item codes),
    without which the model does not know the items.

    Args:
        bundle: Folder or URI, from ``jobs/train.py --bundle`` or a study (its winner).
        folder: A local folder, made if need be.
        merged: Whether LoRA adapters are added into the weights; otherwise they are written alone.

    Returns:
        The names of the files.

    Raises:
        ArtifactError: The bundle is none, or broken.
        ConfigError: Its method has no language model, or not the adapters that were asked for.
    """
    found = read_bundle(find_bundle(bundle))
    method = method_of(parse_method_config(found.method_config))
    inputs = Inputs(
        found.catalog,
        lambda: iter(()),
        artifacts=found.artifacts,
    )
    module = method.restore(inputs, dict(found.state)).eval()
    models = {n: m for n, m in module.named_modules() if isinstance(m, PreTrainedModel)}
    if not models:
        message = (
            f"`bundle` must hold a language model; got {found.uri!r} of method "
            f"{found.method_config['name']!r}, which has none. Give one of another method."
        )
        raise ConfigError(message)
    # A causal model holds its base model, which is one too; the outermost has the output head.
    name, model = min(models.items(), key=lambda pair: len(pair[0]))
    export_language_model(model, folder, merged=merged)
    into = Path(folder)
    tokens = dict(module.named_buffers()).get("tokenizer")
    if tokens is not None:
        TextTokenizer.from_tensor(tokens).save(into)
    save_file(_beside(module, name), into / "beside.safetensors")
    return sorted(file.name for file in into.iterdir())


def _beside(module: nn.Module, name: str) -> dict[str, Tensor]:
    """Return the saved tensors outside of the part `name`."""
    state = module.state_dict()
    return {k: t.contiguous() for k, t in state.items() if not k.startswith(f"{name}.")}
