"""The bearer token: its source, and when a service must have one."""

import os
import secrets
import stat
from pathlib import Path

from itemese.core.errors import ConfigError
from itemese.serving.http.guard import is_loopback

TOKEN_VARIABLE = "ITEMESE_TOKEN"


def read_or_make_token(path: str | Path) -> str:
    """Return the token in a file; create a file with a new token if there is none.

    The new file is readable by its owner only.

    Raises:
        ConfigError: Others may read the file, it cannot be read or written, or holds no token.
    """
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(Path(path))
    except OSError as error:
        message = (
            f"`token_file` must be a file that can be written; got {path} ({error.strerror}). Give "
            "another path."
        )
        raise ConfigError(message) from None
    with os.fdopen(number, "w", encoding="ascii") as file:
        token = secrets.token_urlsafe(32)
        file.write(token + "\n")
    return token


def _read(path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        message = f"`token_file` must be text that can be read; got {path} ({error}). Remove it."
        raise ConfigError(message) from None
    if mode & 0o077:
        message = (
            f"`token_file` must be readable by its owner alone; got mode {mode:04o} of {path}. "
            "Remove the file to have a new token made, for others may know this one."
        )
        raise ConfigError(message)
    if len(token) < 8:
        message = (
            f"`token_file` must hold a token of 8 characters at least; got {len(token)} in {path}. "
            "Remove the file to have one made."
        )
        raise ConfigError(message)
    return token


def require_token(host: str, token: str | None) -> None:
    """Raise ConfigError if other machines could send requests without a token."""
    if token:
        return
    if not is_loopback(host):
        message = (
            f"`http.token` must be set to listen beyond this machine; got none with host {host!r}. "
            f"Give --token-file, set the environment variable {TOKEN_VARIABLE}, or use host "
            "127.0.0.1."
        )
        raise ConfigError(message)
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "0") not in ("", "0"):
        message = (
            "`http.token` must be set with RAY_SERVE_ENABLE_HA_PROXY, whose proxy listens on every "
            f"address; got none. Set {TOKEN_VARIABLE}."
        )
        raise ConfigError(message)
