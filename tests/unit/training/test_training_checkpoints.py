"""A run that is interrupted ends as if it had not been."""

import pickle
import signal
import subprocess
import sys

import pytest
import torch

from asked import validated
from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError
from itemese.evaluation.config import EvaluationConfig
from itemese.methods.base import Stage
from itemese.methods.lookup import method_of, parse_method_config
from itemese.training.checkpoints import checkpoint_folders, latest_checkpoint
from itemese.training.config import TrainingConfig
from itemese.training.data import TrainingData
from itemese.training.fit import TrainingSpec
from itemese.training.inputs import build_module, load_inputs
from itemese.training.loop import Hooks, fit
from itemese.training.stage import train_model
from itemese.training.validation import ValidationData, Validator


class Killed(BaseException):
    """Stands for a process that ends without a word."""


def run(method, world, checkpoints, *, killed_after=None):
    """Train 5 epochs of 7 steps; end at the `killed_after`-th report if one is given."""
    config = TrainingConfig(
        batch_size=16, learning_rate=0.05, max_epochs=5, checkpoint_every_steps=3, patience=2
    )
    validator = Validator.prepare(
        method,
        ValidationData(world, validated(method, world, config)),
        training=config,
        evaluation=EvaluationConfig(),
        seed=3,
    )
    reports: list[dict[str, float]] = []

    def report(metrics, place) -> None:
        reports.append(metrics)
        if len(reports) == killed_after:
            raise Killed

    data = TrainingData.scan(world, config, max_history=50, seed=3)
    module = build_module(method, load_inputs(method, sequences=world, seed=3))
    hooks = Hooks(validator, checkpoints, report)
    return fit(method, module, data, config, seed=3, hooks=hooks)


def staged(method):
    method.stages = lambda: (Stage("a", 0.4, trains=("table",)), Stage("b", 0.6))
    return method


def timeless(curve):
    clocked = {"seconds", "tokens_per_second"}
    return [{n: v for n, v in row.items() if n not in clocked} for row in curve]


# Reports come at steps 3, 6, 7 (epoch), 9, 12, 14 (epoch and end of stage a), 15, ...
@pytest.mark.parametrize("killed_after", [1, 2, 3, 5, 6, 7, 12])
def test_resume_is_exact_to_the_bit(toy, world, tmp_path, killed_after) -> None:
    clean = run(staged(toy()), world, Folder.at(tmp_path / "clean"))
    place = Folder.at(tmp_path / "killed")
    with pytest.raises(Killed):
        run(staged(toy()), world, place, killed_after=killed_after)
    resumed = run(staged(toy()), world, place)
    assert timeless(resumed.curve) == timeless(clean.curve)
    assert all(torch.equal(resumed.state[n], t) for n, t in clean.state.items())
    assert (resumed.steps, resumed.epochs, resumed.best) == (clean.steps, clean.epochs, clean.best)


def test_a_finished_run_is_not_trained_again(toy, world, tmp_path) -> None:
    place = Folder.at(tmp_path)
    first = run(toy(), world, place)
    second = run(toy(), world, place)
    assert second.curve == first.curve
    assert all(torch.equal(second.state[n], t) for n, t in first.state.items())


def test_only_the_newest_checkpoints_are_kept(toy, world, tmp_path) -> None:
    run(toy(), world, Folder.at(tmp_path))
    steps = [
        place.uri.rpartition("/")[2].split("-")[1]
        for place in checkpoint_folders(Folder.at(tmp_path))
    ]
    assert [int(step) for step in steps] == [33, 35]


@pytest.mark.parametrize("torn", ["manifest.json", "model.safetensors", "progress.json"])
def test_a_torn_checkpoint_is_passed_over(toy, world, tmp_path, torn) -> None:
    place = Folder.at(tmp_path)
    with pytest.raises(Killed):
        run(toy(), world, place, killed_after=4)
    *_, newest = sorted(tmp_path.glob("step-*"))
    assert latest_checkpoint(place).progress.step == 9
    if torn == "manifest.json":
        (newest / torn).unlink()
    else:
        (newest / torn).write_bytes((newest / torn).read_bytes()[:100])
    assert latest_checkpoint(place).progress.step == 7
    clean = run(toy(), world, Folder.at(tmp_path / "clean"))
    resumed = run(toy(), world, place)
    assert all(torch.equal(resumed.state[n], t) for n, t in clean.state.items())


def test_a_full_disk_leaves_no_half_checkpoint(toy, world, tmp_path, monkeypatch) -> None:
    write = Folder.write_bytes

    def full(folder, name, content) -> None:
        if name == "optimizer.safetensors":
            message = "`x` could not be written: No space left on device. Free space."
            raise ArtifactError(message)
        write(folder, name, content)

    monkeypatch.setattr(Folder, "write_bytes", full)
    with pytest.raises(ArtifactError, match="No space left"):
        run(toy(), world, Folder.at(tmp_path))
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import os, pickle, signal, sys
import torch
from itemese.core.artifacts import Folder
from itemese.training.loop import Hooks
from itemese.training.fit import fit_spec

reports = []
def report(metrics, checkpoint):
    reports.append(metrics)
    if len(reports) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
torch.set_num_threads(1)
spec = pickle.load(sys.stdin.buffer)
fit_spec(spec, Folder.at(sys.argv[1]).create(), Hooks(report=report))
"""


@pytest.mark.slow
def test_kill_minus_nine_and_start_again(world, tmp_path) -> None:
    def spec_at(name: str) -> TrainingSpec:
        config = parse_method_config({"name": "sasrec", "dim": 8})
        return TrainingSpec(
            config,
            TrainingConfig(batch_size=16, max_epochs=3, checkpoint_every_steps=2),
            EvaluationConfig(),
            seed=5,
            sequences=world,
            artifacts={},
            requests=validated(method_of(config), world),
            checkpoints=Folder.at(tmp_path / name / "checkpoints"),
        )

    ends = []
    for name in ("clean", "killed"):
        out = Folder.at(tmp_path / name)
        if name == "killed":
            command = [sys.executable, "-c", SCRIPT, out.uri]
            ended = subprocess.run(command, check=False, input=pickle.dumps(spec_at(name)))
            assert ended.returncode == -signal.SIGKILL
            assert latest_checkpoint(spec_at(name).checkpoints).progress.step == 10
            assert not out.exists("model.safetensors")
        train_model(spec_at(name), out)
        ends.append(out.read_bytes("model.safetensors"))
    assert ends[0] == ends[1]
