"""Settings of the training loop."""

from typing import Literal, Self

from pydantic import Field, model_validator

from itemese.core.config import Config


class TrainingConfig(Config):
    """How a method's module is trained.

    Determinism: the order of batches, dropout and sampled negatives depend on the seed alone. On
    the CPU the same seed, number of threads and package versions give bit-equal weights, also after
    an interruption; W workers equal one that accumulates W micro-batches up to rounding. On CUDA
    scatter and index sums add in an order of their own, so repeated runs agree up to rounding only.
    Float32 products stay float32 (TF32 is left as the process has it, by default off).

    Attributes:
        batch_size: Histories a micro-batch and worker.
        target_weighting: What a micro-batch weighs in the gradient. ``equal`` adds up the losses of
            its targets and divides by the mean number of targets of a micro-batch over the epoch:
            a target weighs the same whatever the batching, the accumulation and the number of
            workers, and micro-batches that fill up the last step of an epoch count nothing.
            ``per_batch`` divides by the micro-batch's own number: all micro-batches weigh alike,
            so with `bucketed` a target of a short history weighs up to `max_history` times one of
            a long history.
        accumulation: Micro-batches a worker adds up before one optimiser step. Workers x
            accumulation micro-batches make a step; the same product gives the same updates.
        learning_rate: Peak, reached after the warm-up.
        weight_decay: AdamW's, on matrices only (not on biases, norms and embeddings).
        warmup_share: Share of all steps over which the rate rises linearly from 0.
        schedule: Learning rate after the warm-up.
        max_grad_norm: Gradients are scaled down to this norm, so targets of a step with a large
            gradient weigh less; 0 leaves gradients as they are.
        max_epochs: Passes over the training histories at most.
        max_steps: Optimiser steps at most; None leaves it to `max_epochs`.
        validate_every: Epochs between validations.
        validation_users: Users ranked at each validation, drawn once by seed; None takes all.
        metric: Validation metric that selects the checkpoint: of the ranked catalogue
            (``ndcg@10``), or of choosing among offered items in one of the method's ways
            (``likelihood/hit@1``); of a method that predicts clicks ``auc`` or ``log_loss``, whose
            lowest value is taken.
        offered: Items that each validation user is offered, the target among them, if `metric`
            is of choosing.
        patience: Validations without a better `metric` before training stops.
        precision: ``auto`` takes bf16 where the hardware has it (CUDA), else fp32.
        samples: What is one sample of an epoch. ``newest`` takes the newest window of each history,
            as SASRec's code does: one sample a user, targets close in time to those of validation;
            older events are never targets. ``windows`` cuts whole histories into windows, so that
            every event is a target exactly once an epoch (the very oldest only for methods that
            predict it). ``prefixes`` makes a sample of every event and what came before it, as
            BSARec's code does; with `method.targets: last`, where a method has it, the loss is of
            that event alone, as it is when the model is asked.
        bucketed: Whether batches hold histories of similar length, which saves padding.
        group_users: Histories (or windows of them) held in memory at once, rounded up to whole
            shards; batches mix the users of one such group.
        checkpoint_every_steps: Optimiser steps between checkpoints inside an epoch; None saves at
            the ends of epochs only.
        num_workers: Ray Train workers; 0 trains in this process without Ray.
        cpus_per_worker: CPUs that Ray reserves for each worker.
        use_gpu: Whether each Ray Train worker gets a GPU.
        sharded: Whether the workers share weights, gradients and optimiser state instead of each
            holding all of it. Each still holds the whole model in main memory, and on its device
            while it validates.
        max_failures: How often Ray Train restarts lost workers from the last checkpoint.
    """

    batch_size: int = Field(default=128, ge=1)
    accumulation: int = Field(default=1, ge=1)
    target_weighting: Literal["equal", "per_batch"] = "equal"
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    schedule: Literal["constant", "cosine"] = "cosine"
    max_grad_norm: float = Field(default=1.0, ge=0)
    max_epochs: int = Field(default=20, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    validate_every: int = Field(default=1, ge=1)
    validation_users: int | None = Field(default=None, ge=1)
    metric: str = "ndcg@10"
    offered: int = Field(default=20, ge=2)
    patience: int = Field(default=5, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    samples: Literal["newest", "windows", "prefixes"] = "newest"
    bucketed: bool = True
    group_users: int = Field(default=200_000, ge=1)
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    num_workers: int = Field(default=0, ge=0)
    cpus_per_worker: float = Field(default=1.0, gt=0)
    use_gpu: bool = False
    sharded: bool = False
    max_failures: int = Field(default=2, ge=0)

    @model_validator(mode="after")
    def _shards_have_holders(self) -> Self:
        if self.sharded and self.num_workers < 2:
            message = "at least 2 `num_workers` where `sharded` is true; one worker holds it all"
            raise ValueError(message)
        return self
