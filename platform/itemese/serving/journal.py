"""What a replica writes down of each request: one JSON object a line, and no user's own id.

A user is named by a keyed hash, so that lines of one user can be told together and nobody can go
from a line to the user, or try ids out, without the key. A new key cuts the old lines off.
"""

import hashlib
import hmac
import json
import logging
import sys
import time
from typing import Any

_LOG = logging.getLogger(__name__)


def pseudonym(user_id: str, key: str) -> str:
    """Return the name of a user in the journal: 16 hexadecimal digits of HMAC-SHA-256."""
    return hmac.new(key.encode(), user_id.encode(), hashlib.sha256).hexdigest()[:16]


def write_request(**fields: Any) -> None:
    """Write one request down; fields that are None are left out."""
    _LOG.info("request", extra={"fields": {k: v for k, v in fields.items() if v is not None}})


class JsonLines(logging.Formatter):
    """Each record as one JSON object: time, level, message, its fields, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; ASCII, so that no text of a client ends or colours it."""
        told = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=True, default=str)


def open_journal() -> None:
    """Have this process write what the service says to its standard error, as JSON lines.

    Serve puts a logger of its own in the place of ``sys.stderr``, which wraps each line in another
    one and walks the whole stack for it: a third of what a replica's event loop did.
    """
    logger = logging.getLogger("itemese")
    if any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
        return
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
