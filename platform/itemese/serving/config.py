"""Settings of the service."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from itemese.core.config import Config

MAX_K = 1000
"""Maximum number of items that a request may ask for, or ask the scores of."""

MAX_BATCH = 64
"""Maximum number of requests of a batch; a replica with a shorter queue refuses it with 503."""


class _Hidden(str):
    """Text whose `repr` hides it, for error messages."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return a placeholder."""
        return "a secret"


def _hide(value: Any) -> Any:
    """Return a value that error messages do not show."""
    if value is None:
        return None
    return _Hidden(value) if isinstance(value, str) else type(value)


Secret = Annotated[
    Annotated[str, Field(min_length=8)] | None, BeforeValidator(_hide), Field(repr=False)
]


class ServingConfig(Config):
    """Settings of one replica.

    Attributes:
        max_batch_size: Requests answered by one pass through the model.
        batch_wait_seconds: How long the first request of a batch waits for others; a single
            request is slower by that much. With 0 a batch is what arrived while the model was busy.
        max_waiting: Requests in one replica at a time; further ones are refused with 503.
        deadline_seconds: A request that waited so long for the model is refused with 503 before
            the model begins with it. The user store has as long to answer.
        body_seconds: A client that needs longer to send its request is refused with 408.
        max_body_bytes: Larger request bodies are refused with 413.
        max_history: Longer histories are refused with 422; of those accepted the model reads
            the newest events up to its own limit.
        num_threads: Threads of torch in a replica.
        precision: ``bf16`` keeps the model's weights, and what it computes, in half the memory on a
            CUDA device and changes the order of near ties; sums of scores stay in fp32. Refused
            elsewhere, and for methods that only count. ``fp32`` answers as in the evaluation.
        compile: Mode of `torch.compile` for methods that answer by one call of their module, such
            as SASRec; refused for others. ``default`` fuses kernels (it needs a C++ compiler where
            there is no CUDA device), ``reduce-overhead`` records CUDA graphs as well, once for each
            shape. A replica is ready when it has compiled: up to a minute
            more, and as much for each model that is promoted.
        prompt_cache_mb: Memory of a replica for what its model computed from earlier histories,
            MiB; a returning user with one more item costs that item only. 0 disables it.
        history_step: Of a history longer than the model reads, the oldest events are dropped so
            many at a time: the model reads up to ``history_step - 1`` fewer than it could, and a
            returning user's cached prompt stays usable. 1 always reads the newest events, as the
            evaluation does.
        registry_seconds: How often a replica checks whether its registry names another bundle.
        users: User store: a SQLite file on a local disk, shared by all replicas of a machine, or
            ``redis://host:6379/0`` for several machines, a server that writes an append-only file.
            With None, requests must hold their histories.
        log_requests: Whether replicas write a JSON line a request to their standard error.
        log_key: Key of the pseudonyms of users in those lines; random if None. Serve shows it in
            its status page, so prefer the environment variable ``ITEMESE_LOG_KEY``.
    """

    max_batch_size: int = Field(default=16, ge=1, le=4096)
    batch_wait_seconds: float = Field(default=0.0, ge=0, le=1)
    max_waiting: int = Field(default=64, ge=1, le=100_000)
    deadline_seconds: float = Field(default=5.0, gt=0, le=600)
    body_seconds: float = Field(default=5.0, gt=0, le=600)
    max_body_bytes: int = Field(default=1 << 20, ge=1024)
    max_history: int = Field(default=10_000, ge=1)
    num_threads: int = Field(default=1, ge=1, le=1024)
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: Literal["none", "default", "reduce-overhead"] = "none"
    prompt_cache_mb: int = Field(default=256, ge=0)
    history_step: int = Field(default=1, ge=1)
    registry_seconds: float = Field(default=1.0, gt=0, le=3600)
    users: str | None = Field(default=None, min_length=1)
    log_requests: bool = True
    log_key: Secret = None


class ServeArgs(ServingConfig):
    """Arguments of the application builder, as a Serve config file gives them.

    Attributes:
        bundle: URI or path of the bundle, or of a registry; replicas must be able to read it.
        token: Clients must send it as ``Authorization: Bearer ...``. Serve shows arguments in
            its status page, so prefer the environment variable ``ITEMESE_TOKEN``. Without a
            token only clients on the same machine are answered.
    """

    # Serve prints pydantic's errors of a config file.
    model_config = ConfigDict(hide_input_in_errors=True)

    bundle: str = Field(min_length=1)
    token: Secret = None
