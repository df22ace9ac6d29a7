"""Every address answers as its own OpenAPI says, whatever is sent; over HTTP, without Ray."""

from collections import Counter

from itemese.benchmarks.fuzz import ask_everything


def test_the_interface_keeps_its_word(served):
    statuses, broken = ask_everything(served.url, served.token, 80)
    assert not broken, "\n\n".join(broken)
    assert sum(statuses.values()) >= 70
    addresses = {address for address, _ in statuses}
    assert len(addresses) >= 8
    told = Counter()
    for (_, status), number in statuses.items():
        told[status] += number
    assert told[200] > 10, "right requests are answered"
    assert told[422] > 10, "and wrong ones refused"
