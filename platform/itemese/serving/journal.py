"""Request log of a replica: one JSON object a line, with pseudonyms instead of user ids.

The pseudonym is a keyed hash: lines of one user share it, and without the key no one can find the
user of a line or test ids. With a new key, old lines can no longer be linked to new ones.
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
    """Return the pseudonym of a user: 16 hexadecimal digits of HMAC-SHA-256."""
    return hmac.new(key.encode(), user_id.encode(), hashlib.sha256).hexdigest()[:16]


def write_request(**fields: Any) -> None:
    """Log one request; fields that are None are left out."""
    _LOG.info("request", extra={"fields": {k: v for k, v in fields.items() if v is not None}})


class JsonLines(logging.Formatter):
    """Each record as one JSON object: time, level, message, its fields, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line in ASCII, so that text of a client cannot end or colour it."""
        values = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values, ensure_ascii=True, default=str)


def open_journal() -> None:
    """Write this process's log of the service to its standard error, as JSON lines.

    Serve replaces ``sys.stderr`` by a logger that wraps each line in another and walks the whole
    stack for it: a third of the time of a replica's event loop. So the original stream is used.
    """
    logger = logging.getLogger("itemese")
    if any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
        return
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
