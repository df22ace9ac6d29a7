"""Prometheus metrics of one replica.

Each replica counts for itself and labels its series with its name, so that no counter falls because
another replica answered. A scrape through Serve's proxy reaches one replica, any of them: with
several, a series gets a sample now and then, rates over a range with two samples stay right, and a
sum over replicas lacks those that were not reached. Ray's own metrics cover all replicas at once,
but only their requests and latencies.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_BEAMS = (1, 5, 10, 20, 50, 100, 200, 500, 1000)

STAGES = ("queue", "prepare", "model", "name")
"""Stages of an answer: waiting in the queue, building the batch, the pass through the model, naming
the items. A language model's reading and writing of codes are both under ``model``."""


class Metrics:
    """Counters of one replica, in a registry of their own."""

    def __init__(self, replica: str = "") -> None:
        """Start at zero; `replica` labels every series, unless it is empty."""
        self._replica = replica
        self._names: Callable[[], Mapping[str, str]] = dict
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"itemese_{name}", text, labels, registry=self.registry)

        def seconds(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(
                f"itemese_{name}", text, labels, buckets=_BUCKETS, registry=self.registry
            )

        self.requests = counter("requests", "Requests answered.", "path", "status")
        self.seconds = seconds("request_seconds", "Time in the service.", "path")
        self.answers = seconds("answer_seconds", "Time until a model's answer was ready.", "model")
        self.stages = seconds("stage_seconds", "Time of one stage of an answer.", "stage")
        self.batches = Histogram(
            "itemese_batch_size",
            "Requests in one pass through the models.",
            buckets=_SIZES,
            registry=self.registry,
        )
        self.refused = counter(
            "refused",
            "Requests refused as overloaded (busy) or past their deadline (late).",
            "reason",
        )
        self.cold_starts = counter("cold_starts", "Answers without a known item.", "model")
        self.unknown_items = counter("unknown_items", "Unknown items in requests.")
        self.short_answers = counter(
            "short_answers",
            "Answers with fewer items than asked, because of filters or few items.",
            "model",
        )
        self.failures = counter("failures", "Requests that a model failed to answer.", "model")
        self.beams = Histogram(
            "itemese_beams",
            "Beams of a request: the model's width, or its number of items if that is larger.",
            ["model"],
            buckets=_BEAMS,
            registry=self.registry,
        )
        self.invalid_beams = counter(
            "invalid_beams",
            "Beams dropped because their codes are no item; a model with a trie has none.",
            "model",
        )
        self.prompts = counter(
            "prompts", "Prompts of language models by whether the cache had them.", "found"
        )
        self.waiting = Gauge(
            "itemese_waiting",
            "Requests in the replica that wait for a model or are in it.",
            registry=self.registry,
        )
        self._lacking = Gauge(
            "itemese_version_lacking",
            "1 while the registry names a version that does not load and an older one answers.",
            registry=self.registry,
        )
        for reason in ("busy", "late"):  # a rate needs the zero before the first
            self.refused.labels(reason)
        for stage in STAGES:
            self.stages.labels(stage)
        for found in ("yes", "no"):
            self.prompts.labels(found)

    def watch_models(
        self, names: Callable[[], Mapping[str, str]], lacking: Callable[[], bool]
    ) -> None:
        """Report at each scrape which models answer.

        Args:
            names: Returns the name of each model by its role, champion or canary.
            lacking: Returns whether the registry names a version that does not load.
        """
        self._names = names
        self._lacking.set_function(lambda: float(lacking()))
        self.registry.register(_Models(names))

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        by_model = (self.cold_starts, self.short_answers, self.failures, self.invalid_beams)
        for model in self._names().values():
            for counted in (*by_model, self.beams):
                counted.labels(model)
        if not self._replica:
            return generate_latest(self.registry)
        outer = CollectorRegistry()
        outer.register(_Named(self.registry, self._replica))
        return generate_latest(outer)


class _Models(Collector):
    """One sample for each model that answers now."""

    def __init__(self, names: Callable[[], Mapping[str, str]]) -> None:
        self._names = names

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "itemese_model_info", "Models that answer now.", labels=["role", "model"]
        )
        for role, model in self._names().items():
            family.add_metric([role, model], 1.0)
        yield family


class _Named(Collector):
    """All samples of a registry, labelled with the replica's name."""

    def __init__(self, registry: CollectorRegistry, replica: str) -> None:
        self._registry = registry
        self._replica = replica

    def collect(self) -> Iterable[Metric]:
        for family in self._registry.collect():
            family.samples = [
                sample._replace(labels={**sample.labels, "replica": self._replica})
                for sample in family.samples
            ]
            yield family
