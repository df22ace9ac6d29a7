"""Every address answers as its own OpenAPI says, whatever is sent; over HTTP, without Ray."""

from collections import Counter

from itemese.benchmarks.fuzz import ask_everything


def test_the_interface_keeps_its_word(served):
    statuses, broken = ask_everything(served.url, served.token, 80)
    assert not broken, "\n\n".join(broken)
    assert sum(statuses.values()) >= 70
    addresses = {address for address, _ in statuses}
    assert len(addresses) >= 8
    reported = Counter()
    for (_, status), number in statuses.items():
        reported[status] += number
    assert reported[200] > 10, "right requests are answered"
    assert reported[422] > 10, "and wrong ones refused"
