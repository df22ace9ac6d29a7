"""A run that writes texts is killed twice; what it had written is not asked for again."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from itemese.prompts.tokenizer import TextTokenizer

NUM_ITEMS = 400
PATIENCE = 300


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A small drawn model that writes four texts at a time."""
    tokenizer = TextTokenizer.trained(["describe this item in one short sentence"], 300)
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "llama", vocab_size=300, intermediate_size=128, max_position_embeddings=1024, **sizes
    )
    torch.manual_seed(0)
    model = tmp_path / "model"
    AutoModelForCausalLM.from_config(config).save_pretrained(model)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend).save_pretrained(model)
    simulation = {"num_users": 300, "num_items": NUM_ITEMS, "lengths": {"mean": 8, "max": 20}}
    values = {
        "name": "texts",
        "logs": {"source": "simulated", "simulation": simulation},
        "method": {"name": "popularity"},
        "knowledge": {
            "writer": "model",
            "model": str(model),
            "texts": ["summary"],
            "lines": "all",
            "max_new_tokens": 40,
            "batch_size": 4,
        },
    }
    file = tmp_path / "texts.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def written(folder: Path) -> Counter[str]:
    """Return how often each prompt was answered."""
    found: Counter[str] = Counter()
    for part in (folder / "cache" / "knowledge").rglob("part-*.parquet"):
        try:
            found.update(pq.read_table(part)["key"].to_pylist())
        except OSError:
            continue  # it is being written
    return found


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_writer_asks_nothing_twice(recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "jobs/write.py", str(recipe), "--storage", str(store), "--json"]
    before = 0
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + PATIENCE
        while sum(written(store).values()) < before + 20:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        time.sleep(5)  # its actors end after it
        before = sum(written(store).values())
    assert before >= 40
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    counts = json.loads(done.stdout)["counts"]["item"]
    found = written(store)
    assert set(found.values()) == {1}
    assert 0 < counts["asked"]["summary"] == len(found) - before  # items of equal words ask once
