"""Raw fields of a request, encoded as the model was trained on them.

Letter: T events of a history.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from itemese.core.bundle import Bundle
from itemese.core.errors import DataError
from itemese.core.fields import Fields
from itemese.core.users import Users
from itemese.serving.query import Query, QueryError

RawFields = Mapping[str, Mapping[str, Any]]
"""``{"user": {name: value}, "context": {name: value}}``; either may be missing."""


class RequestFields:
    """Encodes the fields of requests for one bundle; without fields in it, requests have none."""

    def __init__(self, bundle: Bundle) -> None:
        artifacts = bundle.artifacts.values()
        fields = next((one for one in artifacts if isinstance(one, Fields)), None)
        self._encoder = fields.encoder if fields is not None else None
        self._users = next((one for one in artifacts if isinstance(one, Users)), None)
        self._method = str(bundle.method_config["name"])

    def check(self, given: RawFields) -> None:
        """Raise `QueryError` unless the model has all of these fields."""
        if not any(given.values()):
            return
        if self._encoder is None:
            message = (
                f"`fields` must not be given to {self._method!r}, a model without fields; got "
                f"{_names(given)}. Leave them out."
            )
            raise QueryError(message)
        try:
            self._encoder.encode(given)
        except DataError as error:
            raise QueryError(str(error).replace("`", "`fields.", 1)) from None

    def encoded(self, query: Query, num_events: int) -> dict[str, np.ndarray]:
        """Return `Request.fields` of a query whose model reads `num_events` events, T.

        What the request does not say of its user comes from the bundle's users, where it has them.
        Fields of past events, and their contexts, are unknown: requests do not hold them.
        """
        if self._encoder is None:
            return {}
        owned = [field.name for field in self._encoder.owned_by("user")]
        logged = self._users.describe(query.user_id) if self._users and query.user_id else {}
        user = {name: value for name, value in logged.items() if name in owned}
        raw = {
            "user": {**user, **query.fields.get("user", {})},
            "context": query.fields.get("context", {}),
        }
        found = self._encoder.encode(raw)
        past = pa.nulls(num_events, pa.string())
        for field in self._encoder.owned_by("event", "context"):
            rows = self._encoder.encode_column(field, past)
            now = [found[field.key][None]] if field.owner == "context" else []
            found[field.key] = np.concatenate([rows, *now])
        return found


def _names(given: RawFields) -> str:
    """Return the first names that were given."""
    names = [f"{owner}.{name}" for owner, values in given.items() for name in values]
    return ", ".join(names[:3])[:80]
