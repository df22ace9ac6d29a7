"""The one place that joins or starts a Ray cluster."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

# RAY_AUTH_MODE is not among them: unset, `ray.init` turns token authentication on for the cluster
# that it starts, and makes the token. Set after `import ray` it is read too late by this process
# and in time by the cluster, which then refuses its own driver (Ray 2.60).
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # A Dataset that waits for CPUs held by others would hang for 30 minutes; fail instead.
    "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "300",
    # Ray Train polls its workers this often; each report waits for a poll (default 2 s).
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # the dashboard's Train tab answers 500 without it
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    # A trial that is stopped writes its records first, perhaps to object storage; Tune waits 2 s,
    # then loses the next trial of the same process without a word.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # What Serve's proxy adds to a request falls by 30 % with one event loop in it and gRPC to the
    # replicas; Serve's own RAY_SERVE_THROUGHPUT_OPTIMIZED sets both, and more.
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # glibc gives large arrays back to the system at once, and the next task faults every page in
    # again: a fifth of the time of grouping 50M events. Workers may keep half a gigabyte, bytes.
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "536870912",
}


def connect() -> None:
    """Join the cluster that `RAY_ADDRESS` names (set inside a Ray job), else start a local one.

    Calling it again does nothing. Settings that the environment already holds are kept.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Put the handlers of Ctrl-C back that Ray Tune and Ray Train leave behind when they are done.

    Theirs would take the next Ctrl-C for one of a run that is over, and do nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # where Ray sets none
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that was not set from Python cannot be put back by it
                signal.signal(number, handler)


def shut_down() -> None:
    """Leave the cluster; one that `connect` started ends."""
    if ray.is_initialized():
        ray.shutdown()
