"""The Ray Train shell: the same loop on several workers, restarted when one is lost.

The run's folder of checkpoints is also Ray Train's run folder. The loop writes its checkpoints
there itself and reports each one without a second copy, so a restarted worker group, and a
restarted driver, resume from the newest complete one.
"""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import torch
from ray.train import CheckpointConfig, CheckpointUploadMode, FailureConfig, RunConfig
from ray.train import ScalingConfig as Scaling
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.util.queue import Queue

from itemese.core import cluster
from itemese.core.artifacts import Counts, Folder
from itemese.core.errors import ConfigError, DataError, ItemeseError, TrainingError
from itemese.training.checkpoints import KEPT
from itemese.training.config import TrainingConfig
from itemese.training.fit import TrainingSpec, fit_spec
from itemese.training.loop import Hooks

_LOG = logging.getLogger(__name__)

OnMetrics = Callable[[dict[str, float]], None]


def fit_on_ray(spec: TrainingSpec, folder: Folder, on_metrics: OnMetrics | None = None) -> Counts:
    """Train on ``spec.training.num_workers`` Ray Train workers.

    Args:
        spec: What to train; its storage must be the same place for all workers.
        folder: Receives the model and the learning curve, from the first worker.
        on_metrics: Called in this process after each validation.

    Returns:
        What `fit_spec` counted.

    Raises:
        ConfigError: The cluster can never hold the workers.
        TrainingError: A loss term is not finite, or workers failed too often.
        ItemeseError: Another user error of a worker.
    """
    cluster.connect()
    check_resources(spec.training)
    spec.checkpoints.create()  # storage that cannot be written fails here, with one sentence
    messages = Queue(actor_options={"num_cpus": 0})
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"spec": spec, "folder": folder, "messages": messages},
        scaling_config=Scaling(
            num_workers=spec.training.num_workers,
            use_gpu=spec.training.use_gpu,
            resources_per_worker={"CPU": spec.training.cpus_per_worker}
            | ({"GPU": 1} if spec.training.use_gpu else {}),
        ),
        run_config=run_config(spec),
    )
    listener = _Listener(messages, on_metrics)
    try:
        with cluster.signals_kept():
            returned = trainer.fit().return_value
    except TrainingFailedError as error:
        raise _user_error(error, spec.training) from error
    finally:
        listener.close()
    if isinstance(returned, ItemeseError):
        raise returned
    return dict(returned)


def run_config(spec: TrainingSpec) -> RunConfig:
    """Return Ray Train's settings of the run; its name and place survive restarts."""
    parent, _, name = spec.checkpoints.uri.rpartition("/")
    return RunConfig(
        name=name,
        storage_path=parent,
        checkpoint_config=CheckpointConfig(num_to_keep=KEPT),
        # Without a limit a worker group that cannot start is retried for ever.
        failure_config=FailureConfig(
            max_failures=spec.training.max_failures, controller_failure_limit=2
        ),
    )


def check_resources(config: TrainingConfig) -> None:
    """Refuse workers that the cluster can never hold; Ray would wait for them.

    Raises:
        ConfigError: Too few CPUs or GPUs, counted node by node.
    """
    places = 0
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        held = node["Resources"]
        fits = held.get("CPU", 0.0) / config.cpus_per_worker
        if config.use_gpu:
            fits = min(fits, held.get("GPU", 0.0))
        places += int(fits + 1e-9)
    if places >= config.num_workers:
        return
    total = ray.cluster_resources()
    each = f"{config.cpus_per_worker:g} CPU" + (" and a GPU" if config.use_gpu else "")
    message = (
        f"`training.num_workers` must be at most {places}; got {config.num_workers}. The cluster "
        f"has {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs; a worker takes {each}. "
        "Lower it, or set it to 0 to train in this process."
    )
    raise ConfigError(message)


def train_worker(config: dict[str, Any]) -> Counts | ItemeseError:
    """Run the loop in one Ray Train worker.

    Args:
        config: ``spec``, ``folder`` and ``messages``, the Ray queue to the driver.

    Returns:
        The counts, or an error that every worker meets alike: returned, it ends the run at once,
        where a raised one would be tried again as if a machine had failed.
    """
    spec: TrainingSpec = config["spec"]
    threads = max(1, int(spec.training.cpus_per_worker))
    os.environ["OMP_NUM_THREADS"] = str(threads)  # accelerate would take every CPU without it
    torch.set_num_threads(threads)
    put = config["messages"].put
    hooks = Hooks(report=_report, on_metrics=put, log=put, kept=None)  # Ray Train drops old ones
    try:
        return fit_spec(spec, config["folder"], hooks)
    except (ConfigError, DataError, TrainingError) as error:
        return error


def _report(metrics: dict[str, float], place: Folder | None) -> None:
    """Report a checkpoint to Ray Train; it is already in the run's folder."""
    checkpoint = None
    if place is not None:
        filesystem, path = place.filesystem()
        checkpoint = ray.train.Checkpoint(path, filesystem)
    mode = CheckpointUploadMode.NO_UPLOAD
    ray.train.report(metrics, checkpoint=checkpoint, checkpoint_upload_mode=mode)


class _Listener:
    """Forwards the first worker's messages, in a thread beside the one that waits for the run."""

    def __init__(self, messages: Queue, on_metrics: OnMetrics | None) -> None:
        self.messages = messages
        self.on_metrics = on_metrics
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Wait until every message is forwarded; raise what `on_metrics` raised."""
        self.messages.put(None)
        self.thread.join()
        self.messages.shutdown(force=True)
        if self.error is not None:
            raise self.error

    def _listen(self) -> None:
        while (message := self.messages.get()) is not None:
            if isinstance(message, str):
                _LOG.info(message)
            elif self.on_metrics is not None and self.error is None:
                try:
                    self.on_metrics(message)
                except Exception as error:  # noqa: BLE001 - it belongs to the caller, see close
                    self.error = error


def _user_error(error: TrainingFailedError, config: TrainingConfig) -> ItemeseError:
    """Return the error of a failed run as one sentence."""
    if isinstance(error, WorkerGroupError):
        for _, failure in sorted(error.worker_failures.items()):
            for cause in (failure, failure.__cause__, getattr(failure, "_base_exc", None)):
                if isinstance(cause, ItemeseError):
                    return cause
    detail = " ".join(str(error).split())
    detail = detail if len(detail) <= 600 else f"... {detail[-600:]}"
    return TrainingError(
        f"`training.num_workers` ({config.num_workers}) must be workers that start and stay "
        f"alive; got more than `training.max_failures` ({config.max_failures}) failures, last: "
        f"{detail} Run the same command again to resume from the last checkpoint, with fewer "
        f"workers or smaller batches if memory or CPUs are short."
    )
