"""Load by wrk, a generator in C: it takes little of the machine that it shares with the service."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from itemese.core.errors import ConfigError

_SCRIPT = """
math.randomseed(SEED)
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
HEADERS
function request()
  local items = {}
  for place = 1, LENGTH do
    items[place] = '"item ' .. math.random(0, ITEMS - 1) .. '"'
  end
  return wrk.format(nil, nil, nil, '{"history":[' .. table.concat(items, ",") .. '],"k":10}')
end
function done(summary, latency, requests)
  local refused = summary.errors.status
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout
  io.write(string.format('\\n{"requests":%d,"failed":%d,"seconds":%.6f,"p50_ms":%.3f,"p95_ms":%.3f}\\n',
    summary.requests - refused, refused + lost, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3))
end
"""


def load(
    url: str,
    headers: Mapping[str, str],
    *,
    num_items: int,
    length: int,
    clients: int,
    seconds: float,
    seed: int,
) -> dict[str, float]:
    """Ask with random histories, each client as soon as it is answered.

    Args:
        url: Asked by POST.
        headers: Of each request; neither names nor values may hold quotes or line ends.
        num_items: Histories hold ``item 0`` to ``item {num_items - 1}``.
        length: Items of a history.
        clients: Connections at a time, from one thread.
        seconds: At least 1; wrk counts whole ones.
        seed: Of the histories.

    Returns:
        ``requests`` answered with success, ``failed`` (other statuses and lost connections),
        ``seconds``, ``per_second``, ``p50_ms`` and ``p95_ms``.

    Raises:
        ConfigError: wrk is not installed, or nothing answers at `url`.
    """
    program = shutil.which("wrk")
    if program is None:
        message = "`wrk` must be on the PATH to measure throughput; got none. Install its package."
        raise ConfigError(message)
    lines = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in headers.items())
    script = _SCRIPT.replace("HEADERS", lines).replace("SEED", str(seed))
    script = script.replace("LENGTH", str(length)).replace("ITEMS", str(num_items))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ask.lua"
        path.write_text(script, encoding="utf-8")
        numbers = ["-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
        command = [program, *numbers, "-s", str(path), url]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    if ran.returncode or not told:
        reason = " ".join((ran.stderr or ran.stdout).split())[-300:]
        message = f"`url` must answer wrk; got {url} and: {reason} Start the service first."
        raise ConfigError(message)
    found: dict[str, float] = json.loads(told[-1])
    return {**found, "per_second": found["requests"] / found["seconds"]}
