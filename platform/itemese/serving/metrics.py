"""What one replica counts, for Prometheus.

Requests reach any replica, and so do scrapes: each replica's series bear its name, so that rates
stay right whichever of them answers a scrape.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

STAGES = ("queue", "prepare", "model", "name")
"""Where an answer's time goes: waiting for the model, batches from histories, the pass through the
model, items from its numbers. A method predicts in one call, so a language model's reading and
writing of codes are both under ``model``."""


class Metrics:
    """Counters of one replica, in a registry of their own."""

    def __init__(self, replica: str = "") -> None:
        """Start at zero; `replica` names who counts, and nothing if empty."""
        self._replica = replica
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
        self.refused = counter("refused", "Requests refused for lack of room or time.", "reason")
        self.cold_starts = counter("cold_starts", "Answers without a known item.")
        self.unknown_items = counter("unknown_items", "Unknown items in requests.")
        self.short_answers = counter(
            "short_answers", "Answers with fewer items than asked, for filters or lack of items."
        )
        self.prompts = counter(
            "prompts", "Prompts of language models, found in the cache or read anew.", "found"
        )
        self.waiting = Gauge(
            "itemese_waiting",
            "Requests in the replica that a model shall answer.",
            registry=self.registry,
        )
        for reason in ("busy", "late"):  # a rate needs the zero before the first
            self.refused.labels(reason)
        for stage in STAGES:
            self.stages.labels(stage)
        for found in ("yes", "no"):
            self.prompts.labels(found)

    def tell_models(self, names: Callable[[], Mapping[str, str]]) -> None:
        """Tell at each scrape which models answer.

        Args:
            names: Returns the name of each model by its role, champion or canary.
        """
        self.registry.register(_Models(names))

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        if not self._replica:
            return generate_latest(self.registry)
        outer = CollectorRegistry()
        outer.register(_Named(self.registry, self._replica))
        return generate_latest(outer)


class _Models(Collector):
    """One sample a model that answers now."""

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
    """Everything of a registry, with the replica's name on each sample."""

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
