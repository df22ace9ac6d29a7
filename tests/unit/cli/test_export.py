"""A bundle's language model leaves in Hugging Face's form and computes what it computed."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from itemese.cli.export import export_bundle
from itemese.core.artifacts import Folder
from itemese.core.bundle import write_bundle
from itemese.core.errors import ConfigError
from itemese.core.schema import Catalog
from itemese.methods.base import Inputs
from itemese.methods.lookup import method_of, parse_method_config
from itemese.prompts.tokenizer import TextTokenizer
from itemese.training.checkpoints import snapshot

NUM_ITEMS = 24
RSLLM = {
    "name": "rsllm",
    "item_form": "text",
    "num_candidates": 4,
    "max_title_tokens": 8,
    "max_tokens": 256,
    "backbone": {"dim": 32, "num_layers": 1, "num_heads": 2, "hidden_dim": 64, "vocabulary": 400},
}


def catalog() -> Catalog:
    ids = [f"i{i}" for i in range(NUM_ITEMS)]
    names = [f"Film number {i}" for i in range(NUM_ITEMS)]
    count = pa.array([1] * NUM_ITEMS, pa.int64())
    return Catalog.from_table(pa.table({"item_id": ids, "title": names, "train_count": count}))


def bundle_of(folder: Path, method_config: dict) -> torch.nn.Module:  # type: ignore[type-arg]
    method = method_of(parse_method_config(method_config))
    torch.manual_seed(0)
    module = method.build(Inputs(catalog(), lambda: iter(())))
    write_bundle(
        Folder.at(folder),
        experiment={"name": "x", "seed": 0, "logs": {}, "sequences": {}, "evaluation": {}},
        method_config=method.config.model_dump(mode="json"),
        state=snapshot(module),
        catalog=catalog(),
        metrics={},
        ancestry={},
    )
    return module.eval()


def test_the_model_and_its_words_come_out(tmp_path: Path) -> None:
    module = bundle_of(tmp_path / "bundle", RSLLM)
    files = export_bundle(str(tmp_path / "bundle"), tmp_path / "out")
    assert {"config.json", "model.safetensors", "tokenizer.json", "beside.safetensors"} <= {*files}
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    words = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    tokens = torch.tensor([words.encode("Film number 7").ids])
    with torch.no_grad():
        expected = module.network.lm(input_ids=tokens).logits  # type: ignore[operator, union-attr]
        torch.testing.assert_close(plain(input_ids=tokens).logits, expected)
    beside = load_file(tmp_path / "out" / "beside.safetensors")
    assert not any(name.startswith("network.lm.") for name in beside)
    assert "network.item_vectors" in beside


def test_what_came_out_is_a_pretrained_model_of_the_next_recipe(tmp_path: Path) -> None:
    first = bundle_of(tmp_path / "bundle", RSLLM)
    export_bundle(str(tmp_path / "bundle"), tmp_path / "out")
    adapted = {"pretrained": str(tmp_path / "out"), "adapter": "lora", "lora_rank": 2}
    method = method_of(parse_method_config(RSLLM | {"backbone": adapted}))
    module = method.build(Inputs(catalog(), lambda: iter(())))
    before, after = (TextTokenizer.from_tensor(m.tokenizer) for m in (first, module))  # type: ignore[arg-type]
    assert (after.end, after.marker) == (before.end, before.marker)
    title = "Film [ID] n\u00famero <end> 7"
    assert after.encode(title) == before.encode(title)
    tokens = torch.tensor([[5, 9, 11]])
    with torch.no_grad():
        expected = first.network.lm(input_ids=tokens).logits  # type: ignore[operator, union-attr]
        found = module.eval().network.lm(input_ids=tokens).logits  # type: ignore[operator, union-attr]
    torch.testing.assert_close(found, expected)  # LoRA begins as nothing


def test_a_method_without_a_language_model_is_refused(tmp_path: Path) -> None:
    bundle_of(tmp_path / "bundle", {"name": "sasrec", "dim": 8})
    with pytest.raises(ConfigError, match="'sasrec', which has none"):
        export_bundle(str(tmp_path / "bundle"), tmp_path / "out")


def test_adapters_of_a_model_without_any_are_refused(tmp_path: Path) -> None:
    bundle_of(tmp_path / "bundle", RSLLM)
    with pytest.raises(ConfigError, match="without adapters"):
        export_bundle(str(tmp_path / "bundle"), tmp_path / "out", merged=False)
