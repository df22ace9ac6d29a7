"""Send a service requests that its OpenAPI allows and requests that it forbids.

Cases and checks are those of schemathesis (in the ``dev`` extra): no 5xx, status and body as in the
schema, valid requests accepted, invalid ones refused, nothing answered without the token.
"""

import re
from collections import Counter
from urllib.parse import parse_qsl, urlsplit

from pydantic import ValidationError

from itemese.core.errors import ConfigError
from itemese.serving.http.messages import ItemSearch

_BEYOND_SCHEMA = re.compile(r"(requests\.\d+\.)?(history|user_id|filter|version|fields)\b")
"""Fields that may be refused although they fit the schema: a history or a user_id is needed, times
must not decrease, columns, fields and canaries must exist, and a service has limits of its own."""


def ask_everything(url: str, token: str, cases: int) -> tuple[Counter[tuple[str, int]], list[str]]:
    """Send valid and invalid requests to every address.

    Args:
        url: Of a service that needs a token.
        token: Its token.
        cases: Number of requests; always the same ones.

    Returns:
        How often each address gave each status, and the violations of the schema, with the request.

    Raises:
        ConfigError: schemathesis is not installed.
    """
    try:
        import schemathesis
        from hypothesis import HealthCheck, Phase, given, settings
        from hypothesis import strategies as st
        from schemathesis.core.failures import FailureGroup
        from schemathesis.core.result import Err, Ok
    except ImportError as error:
        message = f"`schemathesis` must be installed; got {error}. Run: pip install 'itemese[dev]'."
        raise ConfigError(message) from None
    headers = {"Authorization": f"Bearer {token}"}
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found = list(schema.get_all_operations())
    operations = [one.ok() for one in found if isinstance(one, Ok)]
    broken = [f"an address cannot be asked: {one.err()}" for one in found if isinstance(one, Err)]
    accepted, rejected = schemathesis.checks.CHECKS.get_by_names(
        ["positive_data_acceptance", "negative_data_rejection"]
    )
    modes = schemathesis.GenerationMode
    statuses: Counter[tuple[str, int]] = Counter()

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(operations))
        mode = data.draw(st.sampled_from([modes.POSITIVE, modes.NEGATIVE]))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        response = case.call(headers=headers)
        statuses[operation.label, response.status_code] += 1
        # It does not count 413 as a refusal, and calls some searches invalid that it sends valid.
        right = response.status_code == 413 or _is_search(str(response.request.url))
        beside = [accepted, rejected] if right else [accepted]
        try:
            case.validate_response(response, headers=headers, excluded_checks=beside)
        except FailureGroup as failures:
            broken.append(f"{failures} {case.as_curl_command()}")
        if mode is modes.POSITIVE and response.status_code == 422:
            error = response.json()["error"]
            if not _BEYOND_SCHEMA.match(error["field"] or ""):
                broken.append(f"{error['message']} {case.as_curl_command()}")

    ask()
    return statuses, broken


def _is_search(url: str) -> bool:
    """Return whether this address is a valid search."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    try:
        ItemSearch.model_validate_strings(dict(pairs))
    except ValidationError:
        return False
    return len(pairs) == len(dict(pairs))
