"""Texts written of items: by a template word for word, by a model once for each prompt."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError
from itemese.knowledge.cache import Parts, Written
from itemese.knowledge.config import KnowledgeConfig
from itemese.knowledge.stage import build_knowledge, prompt_blocks
from itemese.knowledge.writers import OUTPUT_RULE, ModelWriter, kept_of
from itemese.prompts.tokenizer import TextTokenizer

TITLES = ["red  lipstick", "blue nail polish", None, "red  lipstick"]
KINDS = [["Lips", "gift"], ["Nails"], None, ["Lips", "gift"]]
MODEL = KnowledgeConfig(writer="model", model="some/model")


@pytest.fixture(autouse=True)
def _no_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itemese.core.source._hub_revision", lambda name: name)


def sequences(root: Path, **more: Any) -> Folder:
    folder = Folder.at(root / "sequences")
    ids = [f"i{n}" for n in range(len(TITLES))]
    columns = {"item_id": ids, "title": TITLES, "categories": KINDS, **more}
    folder.write_table("catalog.parquet", pa.table(columns))
    return folder


class Model:
    """Answers in capitals, a few prompts at a time, and counts what it was asked."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.dies_after = dies_after

    def __call__(
        self, config: KnowledgeConfig, prompts: list[str], parts: Parts
    ) -> Iterable[dict[str, Written]]:
        for count, prompt in enumerate(prompts):
            if count == self.dies_after:
                raise KeyboardInterrupt
            self.asked.append(prompt)
            text = prompt.splitlines()[1].upper()
            found = {prompt: Written(text, prompt_tokens=9, tokens=4, seconds=0.5, cut=not count)}
            parts.add(found)
            yield found


def build(root: Path, config: KnowledgeConfig, model: Model | None = None, **more: Any) -> Any:
    out, nothing = Folder.at(root / "out"), Folder.at(root / "nothing")
    cache = Folder.at(root / "cache")
    counts = build_knowledge(config, sequences(root, **more), nothing, cache, out, answers=model)
    return {**counts, **counts["item"]}, out.read_table("item.parquet")


def test_a_template_says_the_items_own_words_and_that_it_is_one(tmp_path: Path) -> None:
    config = KnowledgeConfig(texts=("intention", "summary"))
    counts, table = build(tmp_path, config)
    assert table["key"].to_pylist() == ["i0", "i1", "i2", "i3"]
    wanted = ["looking for red lipstick, Lips, gift", "looking for blue nail polish, Nails", None]
    assert table["intention"].to_pylist() == [*wanted, wanted[0]]
    assert table["summary"].to_pylist()[1] == "blue nail polish. Nails"
    assert counts["author"] == "template"
    assert counts["asked"] == {"intention": 0, "summary": 0}
    assert counts["empty"] == {"intention": 1, "summary": 1}
    assert set(counts["templates"]) == {"intention.offline.jinja", "summary.offline.jinja"}
    assert not Folder.at(tmp_path / "cache").names()


def test_factors_are_those_of_the_domain(tmp_path: Path) -> None:
    config = MODEL.model_copy(update={"texts": ("factors",), "domain": "products"})
    model = Model()
    build(tmp_path, config, model)
    first, second = model.asked
    assert first.startswith("Introduce the product below")
    assert "who it is for, material or ingredients" in first
    assert first.splitlines()[0] == second.splitlines()[0], "what all say stands first"
    assert first.endswith("title: red lipstick\ncategories: Lips, gift")
    for domain in (None, "moovies"):
        with pytest.raises(ConfigError, match=r"`knowledge.domain` must be one of movies, books"):
            build(tmp_path, config.model_copy(update={"domain": domain}), model)
    offline = KnowledgeConfig(texts=("factors",))
    assert build(tmp_path, offline)[1]["factors"][0].as_py() == (
        "title: red lipstick. categories: Lips, gift"
    )


def test_a_model_is_asked_once_for_each_prompt(tmp_path: Path) -> None:
    model = Model()
    counts, table = build(tmp_path, MODEL, model)
    assert len(model.asked) == 2  # two items have one prompt, one has none
    assert "title: red lipstick\ncategories: Lips, gift" in model.asked[0]
    assert table["intention"].to_pylist() == [
        "TITLE: RED LIPSTICK",
        "TITLE: BLUE NAIL POLISH",
        None,
        "TITLE: RED LIPSTICK",
    ]
    assert (counts["author"], counts["asked"]) == ("some/model", {"intention": 2})
    assert (counts["tokens"], counts["prompt_tokens"]) == ({"intention": 8}, {"intention": 18})
    assert (counts["seconds"], counts["cut"]) == ({"intention": 1.0}, {"intention": 1})
    again = Model()
    counts, same = build(tmp_path, MODEL, again)
    assert not again.asked
    assert counts["asked"] == counts["tokens"] == {"intention": 0}
    assert same.equals(table)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "another/model"},
        {"texts": ("summary",)},
        {"max_new_tokens": 7},
        {"lines": "all"},
        {"temperature": 0.5},
        {"seed": 1},
        {"dtype": "bf16"},
    ],
)
def test_texts_of_another_model_template_or_length_are_not_taken(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    build(tmp_path, MODEL, Model())
    other = Model()
    build(tmp_path, MODEL.model_copy(update=changes), other)
    assert len(other.asked) == 2


def test_texts_of_an_older_rule_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr("itemese.knowledge.writers.OUTPUT_RULE", OUTPUT_RULE - 1)
        build(tmp_path, MODEL, Model())
    now = Model()
    build(tmp_path, MODEL, now)
    assert len(now.asked) == 2


def test_texts_of_other_weights_under_the_same_name_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, MODEL, Model())
    monkeypatch.setattr("itemese.core.source._hub_revision", lambda name: "another commit")
    other = Model()
    build(tmp_path, MODEL, other)
    assert len(other.asked) == 2


def test_a_torn_part_is_written_again(tmp_path: Path) -> None:
    build(tmp_path, MODEL, Model())
    torn, *_ = (tmp_path / "cache").rglob("part-*.parquet")
    torn.write_bytes(torn.read_bytes()[:50])
    again = Model()
    build(tmp_path, MODEL, again)
    assert len(again.asked) == 1


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, MODEL, Model(dies_after=1))
    rest = Model()
    counts, table = build(tmp_path, MODEL, rest)
    assert len(rest.asked) == 1
    assert counts["asked"] == {"intention": 1}
    assert table["intention"].null_count == 1


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"known templates; got 'intentoin'. Did you mean"):
        build(tmp_path, KnowledgeConfig(texts=("intentoin",)))
    with pytest.raises(ConfigError, match=r"must name a column of the items; got \['plot'\]"):
        build(tmp_path, KnowledgeConfig(columns=("plot",)))
    with pytest.raises(ConfigError, match=r"columns that the items have already; got \['inten"):
        build(tmp_path, KnowledgeConfig(), intention=["a", "b", "c", "d"])
    for values in (
        {"writer": "model"},
        {"model": "x/y"},
        {"texts": []},
        {"texts": ["../x"]},
        {"writer": "endpoint", "model": "x"},
        {"writer": "endpoint", "model": "x", "endpoint": {"url": "file:///etc"}},
        {"writer": "model", "model": "x", "endpoint": {"url": "http://x"}},
    ):
        with pytest.raises(ConfigError, match="`knowledge"):
            KnowledgeConfig.parse(values, where="knowledge")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Save a drawn two-layer model with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = TextTokenizer.trained(["a red lipstick for lips", "what was wanted"], 300)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "llama", vocab_size=300, intermediate_size=32, max_position_embeddings=256, **sizes
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend, eos_token="<end>").save_pretrained(
        folder
    )
    return str(folder)


def test_a_model_writes_the_same_alone_and_in_a_batch(tiny: str) -> None:
    config = KnowledgeConfig(writer="model", model=tiny, max_new_tokens=6, max_prompt_tokens=40)
    writer = ModelWriter(config, "cpu")
    prompts = ["red", "a red lipstick for lips, wanted", "x" * 200]
    together = [one.text for one in writer.write(prompts)]
    assert together == [writer.write([prompt])[0].text for prompt in prompts]
    assert len(set(together)) > 1
    assert not [text for text in together if "\n" in text]


@pytest.mark.parametrize(
    ("prompt", "answer", "said"),
    [
        ("Why?", " For a gift.\nOr not.", "For a gift."),
        ("Why?", "<think>Well,\nlips.</think>\n\nFor a gift.", "For a gift."),
        ("Why?", "<think>\n\n</think>\n\nFor a gift.", "For a gift."),
        ("Why?", "<think>\nWell, who would", ""),
        ("Why?\n<think>\n", "Well, lips.\n</think>\nFor a gift.", "For a gift."),
        ("Why?\n<think>\n", "Well, who would", ""),
    ],
)
def test_thoughts_are_no_part_of_an_answer(prompt: str, answer: str, said: str) -> None:
    assert kept_of(prompt, answer) == said


def test_a_model_is_asked_not_to_think(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ModelWriter(KnowledgeConfig(writer="model", model=tiny, max_prompt_tokens=100), "cpu")
    writer.tokenizer.chat_template = (
        "{{ messages[0].content }}"
        "{% if enable_thinking is defined and not enable_thinking %} a gift{% endif %}"
    )
    assert writer._as_chat("red") == "red a gift"
    thought = writer.tokenizer("<think>lips</think> what was wanted")["input_ids"]
    monkeypatch.setattr(writer.continuation, "write", lambda *_: [thought])
    assert [one.text for one in writer.write(["red"])] == ["what was wanted"]


def test_a_prompt_that_is_too_long_loses_its_oldest_events(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = KnowledgeConfig(writer="model", model=tiny, max_new_tokens=3, max_prompt_tokens=60)
    writer = ModelWriter(config, "cpu")
    read: list[str] = []
    whole = writer.continuation.write

    def watched(prompts: Any, longest: int) -> Any:
        read.extend(writer.tokenizer.batch_decode(prompts))
        return whole(prompts, longest)

    monkeypatch.setattr(writer.continuation, "write", watched)
    events = "\n".join(f"- red {number} lips" for number in range(30))
    short, long = writer.write(["a red lipstick", f"wanted:\n{events}\nwhat?"])
    assert (short.shortened, long.shortened) == (False, True)
    assert long.prompt_tokens <= 60
    assert read[0] == "a red lipstick"
    first, *kept, last = read[1].split("\n")
    assert (first, last) == ("wanted:", "what?")
    assert kept == events.split("\n")[-len(kept) :]
    assert len(writer.tokenizer(f"{read[1]}\n- red 10 lips")["input_ids"]) > 60


def test_texts_that_many_prompts_share_are_counted(tmp_path: Path) -> None:
    class Parrot(Model):
        def __call__(
            self, config: KnowledgeConfig, prompts: list[str], parts: Parts
        ) -> Iterable[dict[str, Written]]:
            yield dict.fromkeys(prompts, Written("a nice thing"))

    counts, _ = build(tmp_path, MODEL, Parrot())
    assert counts["repeated"] == {"intention": 2}, "two prompts of three items"
    counts, _ = build(tmp_path / "other", MODEL, Model())
    assert counts["repeated"] == {"intention": 0}
    counts, _ = build(tmp_path / "offline", KnowledgeConfig())
    assert counts["repeated"] == {"intention": 0}, "equal items are no repetition"


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    config = KnowledgeConfig(writer="model", model=str(tmp_path))
    with pytest.raises(ConfigError, match="must be a loadable causal language model"):
        ModelWriter(config, "cpu")


@pytest.mark.ray
def test_a_pool_of_actors_writes_and_keeps(ray_cluster: None, tmp_path: Path, tiny: str) -> None:
    config = KnowledgeConfig(
        writer="model",
        model=tiny,
        max_new_tokens=6,
        max_prompt_tokens=100,
        batch_size=1,
        max_actors=1,
    )
    counts, table = build(tmp_path, config)
    assert counts["asked"] == {"intention": 2}
    writer = ModelWriter(config, "cpu")
    cached, _ = build(tmp_path, config, Model(dies_after=0))  # no item is asked again
    assert cached["asked"] == {"intention": 0}
    assert table["intention"].to_pylist()[0] == table["intention"].to_pylist()[3]
    assert writer.write(["red"])[0].text == writer.write(["red"])[0].text


def test_each_batch_of_prompts_is_a_block() -> None:
    """Ray gives a pool up whose blocks take an hour: none may hold all prompts."""
    prompts = ["ccc", "a", "bb", "dddd", "ee"]
    blocks = [block["prompt"].to_pylist() for block in prompt_blocks(prompts, 2)]
    assert blocks == [["a", "bb"], ["ee", "ccc"], ["dddd"]]
