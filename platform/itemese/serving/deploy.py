"""Serve a bundle from Python: start Ray and Serve if needed, wait, and stop what was started."""

import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import ray
from ray import serve

from itemese.core import cluster
from itemese.core.artifacts import Folder
from itemese.core.bundle import find_bundle, verify_bundle
from itemese.core.errors import ArtifactError, ConfigError
from itemese.serving.config import ServeArgs, ServingConfig
from itemese.serving.http.guard import is_loopback
from itemese.serving.registry import is_registry, read_registry
from itemese.serving.replica import application
from itemese.serving.token import TOKEN_VARIABLE, require_token

APPLICATION = "itemese"
READY_SECONDS = 120.0
"""How long a replica may take from its start to its first answer."""

REQUEST_SECONDS = 30.0
"""After this time Serve answers a request with 408."""

_LOGGING = {"log_level": "WARNING", "enable_access_log": False}
"""Logging of Serve: no access log, as addresses hold user ids; `journal` logs requests."""


@dataclass(frozen=True)
class Deployment:
    """A running service.

    Attributes:
        url: For example ``http://127.0.0.1:8000``.
        model: Name of the model that answers.
        token: What clients must send, or None.
    """

    url: str
    model: str
    token: str | None = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Headers that a client must send."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


@contextlib.contextmanager
def deploy(
    bundle_uri: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    num_replicas: int = 1,
    num_cpus: float = 1.0,
    settings: ServingConfig | None = None,
) -> Iterator[Deployment]:
    """Serve a bundle until the block ends.

    A running Ray cluster or Serve instance is used and left running; only this application is
    removed from it at the end. One service runs in a cluster at a time.

    Args:
        bundle_uri: Folder of a bundle, of a study with a winner, or of a registry; every node must
            be able to read it.
        host: Address to listen on. Any other than a loopback address needs a token.
        port: 0 picks a free one.
        token: Bearer token; taken from ITEMESE_TOKEN if None.
        num_replicas: Processes that answer.
        num_cpus: CPUs that Ray reserves for each.
        settings: Of each replica.

    Yields:
        The service, once it answers over HTTP.

    Raises:
        ArtifactError: The bundle is torn or does not load.
        ConfigError: The port is taken, the address needs a token, a service runs already, or the
            cluster has too few free CPUs.
    """
    token = token or os.environ.get(TOKEN_VARIABLE) or None
    require_token(host, token)
    place = Folder.at(bundle_uri)
    if is_registry(place):
        verify_bundle(place.child(read_registry(place).champion))
    else:
        place = find_bundle(bundle_uri)
        verify_bundle(place)
    values = (settings or ServingConfig()).model_dump()
    args = ServeArgs.parse({**values, "bundle": place.uri, "token": token}, where="serving")
    _quiet()
    with contextlib.ExitStack() as stack:
        ours = not ray.is_initialized()
        if ours:
            cluster.connect()
            stack.callback(cluster.shut_down)
        port, started = _listen(host, port)
        if started:  # Serve ends with a cluster that we started, but its handle would stay
            stack.callback(_forget_serve if ours else serve.shutdown)
        url = f"http://{_reachable(host)}:{port}"
        if APPLICATION in serve.status().applications:
            message = (
                f"`application` must not run yet; got {APPLICATION!r} serving at {url} already. "
                "Stop that service first."
            )
            raise ConfigError(message)
        stack.callback(_remove)
        actor = {"num_cpus": num_cpus}
        _start(application(args, num_replicas=num_replicas, ray_actor_options=actor))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        yield Deployment(url, wait_until_ready(url, headers), token)


def free_port(host: str, port: int) -> int:
    """Return `port` if it can be listened on, or any free one for 0.

    Raises:
        ConfigError: Something else listens there, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that is only fading out does not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except (OSError, OverflowError) as error:
            reason = "in use" if getattr(error, "errno", None) == 98 else f"refused ({error})"
            message = (
                f"`http.port` must be free; got {port} {reason} on {host}. "
                "Choose another with --port."
            )
            raise ConfigError(message) from None
        return int(probe.getsockname()[1])


def wait_until_ready(url: str, headers: dict[str, str], seconds: float = READY_SECONDS) -> str:
    """Wait until the service answers; return its model's name.

    Raises:
        ConfigError: It does not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    last = "no connection"
    with httpx.Client(base_url=url, headers=headers, timeout=10, trust_env=False) as client:
        while time.monotonic() < deadline:
            try:
                answer = client.get("/readyz")
                if answer.status_code == 200:
                    facts: dict[str, Any] = client.get("/v1/model").raise_for_status().json()
                    return str(facts["model"])
                last = f"status {answer.status_code}"
            except httpx.HTTPError as error:
                last = str(error) or type(error).__name__
            time.sleep(0.1)
    message = (
        f"`http` must answer within {seconds:.0f} s; got {last} from {url}. Free CPUs for the "
        "replica, or look into Serve's logs."
    )
    raise ConfigError(message)


def _listen(host: str, port: int) -> tuple[int, bool]:
    """Start Serve's proxy, or join the one that runs; return its port and whether it is new.

    Raises:
        ConfigError: The port is taken, or Serve listens on another one already.
    """
    running = _running_address()
    if running is not None:
        if port not in (0, running[1]):
            message = (
                f"`http.port` must be {running[1]}, where this cluster's Serve listens already; "
                f"got {port}. Leave it out, or stop that Serve first."
            )
            raise ConfigError(message)
        if not is_loopback(running[0]) and is_loopback(host):
            message = (
                f"`http.host` must be {running[0]!r}, where this cluster's Serve listens already; "
                f"got {host!r}. Give that host and a token."
            )
            raise ConfigError(message)
        return running[1], False
    port = free_port(host, port)
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": host, "port": port, "request_timeout_s": REQUEST_SECONDS},
            logging_config=_LOGGING,
        )
    except (TimeoutError, ray.exceptions.RayError) as error:
        serve.shutdown()
        message = (
            f"`http.port` must be opened by Serve's proxy; got {port} and: {str(error)[-200:]} "
            "Free CPUs or choose another with --port."
        )
        raise ConfigError(message) from None
    return port, True


def _running_address() -> tuple[str, int] | None:
    """Return host and port of this cluster's Serve, or None if there is none."""
    # Serve has no public call for this; `serve.status` has no port.
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (client.http_config.host, client.http_config.port)


def _forget_serve() -> None:
    """Drop this process's handle on Serve, so that the next cluster gets a new one."""
    from ray.serve.context import _set_global_client  # no public call does only this

    _set_global_client(None)


def _start(target: serve.Application) -> None:
    """Deploy, and wait until every replica has loaded.

    Raises:
        ArtifactError: A replica could not load the bundle.
        ConfigError: The cluster has too few free CPUs for the replicas.
    """
    run = serve.RunTarget(
        target=target, name=APPLICATION, route_prefix="/", logging_config=_LOGGING
    )
    serve.run_many([run], wait_for_applications_running=False)
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        state = serve.status().applications[APPLICATION]
        if state.status == "RUNNING":
            return
        if state.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            text = state.message + " ".join(d.message for d in state.deployments.values())
            causes = re.findall(r"(?:ArtifactError|ConfigError): ([^\n]+)", text)
            detail = causes[-1] if causes else " ".join(text.split())[-500:]
            message = f"`bundle` must load in a replica; got: {detail}"
            raise ArtifactError(message)
        time.sleep(0.1)
    message = (
        f"`serving.num_cpus` must fit into the cluster; got none in {READY_SECONDS:.0f} s "
        f"with {ray.available_resources().get('CPU', 0):g} CPUs free. Give fewer CPUs or replicas."
    )
    raise ConfigError(message)


def _remove() -> None:
    """Delete the application; the rest of Serve stays."""
    with contextlib.suppress(Exception):
        serve.delete(APPLICATION)


def _reachable(host: str) -> str:
    """Return the address at which this machine reaches a listener on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _quiet() -> None:
    """Keep Serve's progress off the console; what fails is raised."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
