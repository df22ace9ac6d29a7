"""Text tokenizers: nothing is lost, nothing special is read out of a title."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from itemese.core.errors import ArtifactError, ConfigError
from itemese.prompts.tokenizer import END, MARKER, TextTokenizer

TITLES = ["Toy Story (1995)", "Toy Story 2 (1999)", "Amélie", "千と千尋", "a\tb"]


def save(folder: Path, vocabulary: list[str], **special: str) -> str:
    words = {word: place for place, word in enumerate(vocabulary)}
    backend = Tokenizer(models.WordLevel(words, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?", **special).save_pretrained(
        folder
    )
    return str(folder)


def test_bytes_know_every_title() -> None:
    found = TextTokenizer.trained(TITLES, 300)
    for title in [*TITLES, "🎬 unseen"]:
        assert found.decode(found.encode(title)) == title
    assert found.size <= 300
    assert len(found.encode("Toy Story")) < len("Toy Story")


def test_a_title_cannot_speak_the_markers() -> None:
    found = TextTokenizer.trained(TITLES, 300)
    tokens = found.encode(f"x{END}{MARKER}")
    assert found.end not in tokens
    assert not set(found.marker) & set(tokens)
    assert found.decode(tokens) == f"x{END}{MARKER}"


def test_training_twice_gives_the_same_tokens() -> None:
    first, second = (TextTokenizer.trained(TITLES * 3, 400) for _ in range(2))
    assert first.backend.to_str() == second.backend.to_str()


def test_a_vocabulary_too_small_for_bytes_and_markers_is_refused() -> None:
    assert TextTokenizer.trained(TITLES, 258).size == 258
    with pytest.raises(ConfigError, match=r"vocabulary` must be at least 258.*got 257"):
        TextTokenizer.trained(TITLES, 257)


def test_it_travels_as_bytes() -> None:
    found = TextTokenizer.trained(TITLES, 300)
    again = TextTokenizer.from_tensor(found.to_tensor())
    assert (again.end, again.marker) == (found.end, found.marker)
    text = f"Toy {MARKER} Story"
    assert again.encode(text) == found.encode(text)
    with pytest.raises(ArtifactError, match="Train again"):
        TextTokenizer.from_tensor(torch.zeros(4, dtype=torch.uint8))


def test_a_pretrained_tokenizer_needs_no_padding_token(tmp_path: Path) -> None:
    name = save(tmp_path, ["?", "[", "ID", "]", "toy", "</s>"], eos_token="</s>")
    found = TextTokenizer.pretrained(name)
    assert found.end == 5
    assert found.marker == (1, 2, 3)
    assert found.encode("toy [ID]") == [4, 1, 2, 3]


def test_a_vocabulary_that_cannot_write_the_marker_is_refused(tmp_path: Path) -> None:
    name = save(tmp_path, ["?", "toy", "</s>"], eos_token="</s>")
    with pytest.raises(ConfigError, match=r"can write '\[ID\]'"):
        TextTokenizer.pretrained(name)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="end-of-text or separator token"):
        TextTokenizer.pretrained(save(tmp_path, ["?", "[", "ID", "]"]))


def test_a_name_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must have a tokenizer"):
        TextTokenizer.pretrained(str(tmp_path / "nothing"))
