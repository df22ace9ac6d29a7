"""The training loop: the same in this process and in every Ray Train worker.

It uses methods through `Method` only, and storage and callbacks through `Hooks` only.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError
from itemese.core.progress import bar
from itemese.evaluation.model import evaluating
from itemese.methods.base import Method, Stage
from itemese.training.checkpoints import (
    KEPT,
    Checkpoint,
    latest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    snapshot,
)
from itemese.training.config import TrainingConfig
from itemese.training.data import Share, TrainingData
from itemese.training.progress import Console, Progress
from itemese.training.step import Stepper, learning_rate, make_accelerator

_LOG = logging.getLogger(__name__)

STEPS_TIMED = 1000
"""Newest steps over which the median step time is taken."""


class Validate(Protocol):
    """Ranks a worker's share of the validation users."""

    def __call__(
        self, module: nn.Module, device: torch.device, *, rank: int, workers: int
    ) -> dict[str, tuple[float, int]]:
        """Return the sum of each metric over the share's requests, and their number."""


@dataclass(frozen=True)
class Hooks:
    """Callbacks and storage of a training loop.

    Attributes:
        validate: Measures the module; None trains to the end and keeps the last state.
        checkpoints: Where checkpoints are kept and looked for; None keeps none.
        report: Called by every worker after each validation and checkpoint with flat metrics and
            the checkpoint just written (None on workers but the first, and where there is none).
        on_metrics: Called by the first worker after each validation with flat metrics.
        replays: Whether `on_metrics` is first called for the validations of earlier attempts.
        log: Called by the first worker with a line of progress every few seconds.
        kept: Number of checkpoints to keep; None if `report` manages their removal.
        stop_after: Steps after which each stage ends; the learning rate still follows the stage's
            planned steps. None lets patience and the plan decide.
        falling: Whether `training.metric` is better when lower.
    """

    validate: Validate | None = None
    checkpoints: Folder | None = None
    report: Callable[[dict[str, float], Folder | None], None] | None = None
    on_metrics: Callable[[dict[str, float]], None] | None = None
    replays: bool = False
    log: Callable[[str], None] = _LOG.info
    kept: int | None = KEPT
    stop_after: tuple[int, ...] | None = None
    falling: bool = False


@dataclass(frozen=True)
class Fitted:
    """Result of training.

    Attributes:
        state: Tensors of the selected module, on the CPU.
        best: Validation metrics of that module.
        selected: Steps that each stage had taken at its best validation.
        curve: Rows of the learning curve.
        steps: Optimiser steps taken.
        epochs: Epochs started.
        seconds: Training and validation, over all attempts.
        tokens_per_second: History events trained on in a second of training.
        step_seconds: Median over the newest steps.
        is_first: Whether this is the worker that writes.
    """

    state: dict[str, Tensor]
    best: dict[str, float]
    selected: tuple[int, ...]
    curve: list[dict[str, float]]
    steps: int
    epochs: int
    seconds: float
    tokens_per_second: float
    step_seconds: float
    is_first: bool


def fit(
    method: Method,
    module: nn.Module,
    data: TrainingData,
    config: TrainingConfig,
    *,
    seed: int = 0,
    hooks: Hooks | None = None,
) -> Fitted:
    """Train `module` in place and return its best state.

    Args:
        method: Gives batches, loss terms and stages.
        module: Built by the method.
        data: The training histories.
        config: The training section.
        seed: The experiment's: of batch order, dropout and sampled negatives.
        hooks: Validation, checkpoints and reports.

    Raises:
        TrainingError: A loss term is not finite.
        ArtifactError: A checkpoint cannot be written.
        ConfigError: No loss term is on, or the device lacks the precision.
    """
    return _Run(method, module, data, config, seed=seed, hooks=hooks or Hooks()).run()


def plan_stages(stages: Sequence[Stage], total: int) -> list[tuple[Stage, int]]:
    """Divide `total` steps among the stages by their shares; each gets at least one."""
    assert abs(sum(stage.share for stage in stages) - 1) < 1e-6, "shares of stages must sum to 1"
    plan, done, share = [], 0, 0.0
    for stage in stages:
        share += stage.share
        until = max(done + 1, round(share * total))
        plan.append((stage, until - done))
        done = until
    return plan


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        method: Method,
        module: nn.Module,
        data: TrainingData,
        config: TrainingConfig,
        *,
        seed: int,
        hooks: Hooks,
    ) -> None:
        self.method = method
        self.data = data
        self.config = config
        self.seed = seed
        self.hooks = hooks
        use_gpu = config.use_gpu if config.num_workers else True
        self.accelerator: Accelerator = make_accelerator(config, use_gpu=use_gpu)
        # Workers that share a model keep the whole of it in main memory only.
        self.storage_device = torch.device("cpu") if config.sharded else self.accelerator.device
        self.module = module.to(self.storage_device)
        workers, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.share = Share(workers, rank, config.accumulation)
        self.plan = plan_stages(method.stages(), data.total_steps(self.share.step_size))
        self.trainable = {n for n, p in module.named_parameters() if p.requires_grad}
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        self.limit = 0  # steps after which the stage ends
        self.step_seconds: deque[float] = deque(maxlen=STEPS_TIMED)
        total = sum(steps for _, steps in self.plan)
        self.console = Console(total, hooks.log if rank == 0 else None)
        self.started = time.monotonic()

    def run(self) -> Fitted:
        """Train every stage, from the newest checkpoint on."""
        optimizer = self._resume()
        with bar("steps", self.console.total_steps) as self.advance:
            self.advance(self.progress.step)
            self._train(optimizer)
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name in self.trainable)
        done = self.progress
        return Fitted(
            state=self.best or snapshot(self.module),
            best=done.best,
            selected=tuple(done.selected),
            curve=done.curve,
            steps=done.step,
            epochs=done.epoch + (done.epoch_step > 0),
            seconds=round(done.seconds, 3),
            tokens_per_second=round(done.tokens / max(done.train_seconds, 1e-9), 1),
            step_seconds=median(self.step_seconds) if self.step_seconds else 0.0,
            is_first=self.accelerator.is_main_process,
        )

    def _train(self, optimizer: dict[str, Tensor] | None) -> None:
        """Train the stages that are left; the first goes on with these optimiser tensors."""
        if self.hooks.replays:
            for row in self.progress.curve:
                self._notify(row)
        while self.progress.stage < len(self.plan):
            stage, steps = self.plan[self.progress.stage]
            self._freeze_others(stage)
            self.method.on_stage_start(self.module, stage)
            stepper = Stepper(
                self.method,
                self.module,
                stage=stage,
                config=self.config,
                accelerator=self.accelerator,
                seed=self.seed,
            )
            if optimizer is not None:
                restore_optimizer(stepper.optimizer, optimizer)
            optimizer = None
            limits, progress = self.hooks.stop_after, self.progress
            self.limit = min(steps, limits[progress.stage]) if limits else steps
            while progress.stage_step < self.limit and progress.waited < self.config.patience:
                self._train_epoch(stepper, steps)
            self._end_stage()

    def _train_epoch(self, stepper: Stepper, stage_steps: int) -> None:
        """Continue the current epoch until it or the stage ends, then validate and save."""
        progress, every = self.progress, self.config.checkpoint_every_steps
        steps_in_epoch = self.data.steps_in_epoch(progress.epoch, self.share.step_size)
        plan = self.data.plan(progress.epoch, self.method.count_targets)
        self.module.train()
        rate = 0.0
        clock = time.perf_counter()
        for micro_batches in self.data.steps(progress.epoch, self.share, start=progress.epoch_step):
            rate = learning_rate(self.config, progress.stage_step, stage_steps)
            facts = stepper.step(micro_batches, plan=plan, step=progress.step, rate=rate)
            seconds = time.perf_counter() - clock
            progress.add(facts, seconds)
            self.step_seconds.append(seconds)
            self.console.step(progress, facts)
            self.advance(1)
            if progress.stage_step == self.limit or progress.epoch_step == steps_in_epoch:
                break
            if every and progress.step % every == 0:
                stepper.write_back()
                self._save(stepper, {})
            clock = time.perf_counter()
        if progress.epoch_step == steps_in_epoch:
            progress.epoch, progress.epoch_step = progress.epoch + 1, 0
        self._end_epoch(stepper, rate, ended=progress.stage_step == self.limit)

    def _end_epoch(self, stepper: Stepper, rate: float, *, ended: bool) -> None:
        """Validate if it is due, record the best state, write a checkpoint and report."""
        progress, metrics, best = self.progress, {}, False
        stepper.write_back()
        due = progress.epoch % self.config.validate_every == 0 or ended
        due = due and self.plan[progress.stage][0].validated
        if self.hooks.validate is not None and due:
            metrics = self._validate()
            best = progress.add_validation(metrics, self.config.metric, falling=self.hooks.falling)
            if best:
                self.best = snapshot(self.module)
        self._add_elapsed()
        row = progress.close_row(metrics, rate, stepper.weights)
        self.console.row(row, self.config.metric, best=best)
        self._save(stepper, row)
        self._notify(row)

    def _notify(self, row: dict[str, float]) -> None:
        """Call `on_metrics` for a row of the learning curve that holds a validation."""
        listener = self.hooks.on_metrics if self.accelerator.is_main_process else None
        if listener is not None and f"val/{self.config.metric}" in row:
            listener(dict(row))

    def _validate(self) -> dict[str, float]:
        """Return metrics over all validation users, equal on every worker."""
        assert self.hooks.validate is not None
        with evaluating(self.module.to(self.accelerator.device)):  # once around all batches
            sums = self.hooks.validate(
                self.module,
                self.accelerator.device,
                rank=self.share.rank,
                workers=self.share.workers,
            )
        self.module.to(self.storage_device)
        pairs = torch.tensor([*sums.values()], dtype=torch.float64)  # [metrics, 2]
        pairs = self.accelerator.reduce(pairs.to(self.accelerator.device), "sum")
        return {
            name: value / count for name, (value, count) in zip(sums, pairs.tolist(), strict=True)
        }

    def _end_stage(self) -> None:
        """Load the stage's best state, if it has one, and reset the selection for the next."""
        progress = self.progress
        if not self.plan[progress.stage][0].validated or not progress.best:
            progress.selected = [*progress.selected[: progress.stage], progress.stage_step]
        progress.stage, progress.stage_step, progress.waited = progress.stage + 1, 0, 0
        if progress.stage < len(self.plan):
            if self.best is not None:
                self.module.load_state_dict(self.best)
            progress.best, self.best = {}, None

    def _freeze_others(self, stage: Stage) -> None:
        """Freeze the parameters that the stage does not train; those that `build` froze stay so."""
        for name, parameter in self.module.named_parameters():
            chosen = not stage.trains or name.startswith(stage.trains)
            parameter.requires_grad_(chosen and name in self.trainable)
        trained = any(parameter.requires_grad for parameter in self.module.parameters())
        assert trained, f"stage {stage.name!r} trains nothing: no parameter under {stage.trains}"

    def _add_elapsed(self) -> None:
        """Add the time since the last call to the recorded seconds."""
        now = time.monotonic()
        self.progress.seconds += now - self.started
        self.started = now

    def _save(self, stepper: Stepper, metrics: dict[str, float]) -> None:
        """Write a checkpoint on the first worker, and let every worker report."""
        self._add_elapsed()
        place = None
        optimizer = optimizer_tensors(stepper.optimizer)  # by all workers: see there
        if self.hooks.checkpoints is not None and self.accelerator.is_main_process:
            state = Checkpoint(self.progress, snapshot(self.module), self.best, optimizer)
            place = save_checkpoint(self.hooks.checkpoints, state, kept=self.hooks.kept)
        if self.hooks.report is not None:
            self.hooks.report(metrics, place)

    def _resume(self) -> dict[str, Tensor] | None:
        """Load the newest checkpoint; return its optimiser tensors, None for a new run."""
        if self.hooks.checkpoints is None:
            return None
        found = latest_checkpoint(self.hooks.checkpoints)
        steps = [found.progress.step if found else -1]
        # Workers that load different checkpoints would train different models unnoticed.
        if self.share.workers > 1:
            broadcast_object_list(steps)
        if steps[0] != (found.progress.step if found else -1):
            message = (
                f"`storage` must be the same for all workers; got checkpoint step {steps[0]} on "
                f"the first and another on worker {self.share.rank}. Use a shared storage."
            )
            raise ArtifactError(message)
        if found is None:
            return None
        self.progress, self.best = found.progress, found.best
        self.module.load_state_dict(found.model)
        return found.optimizer
