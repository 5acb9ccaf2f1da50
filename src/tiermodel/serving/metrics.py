"""What a server counts, in Prometheus' text format; nothing in it is a value of a request."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        """Make the metrics, all at zero."""
        self._registry = CollectorRegistry()
        self.requests = Counter("tiermodel_requests", "Requests answered.", ["path", "status"], registry=self._registry)
        self.seconds = Histogram(
            "tiermodel_score_seconds", "Time from the request to its answer.", buckets=_SECONDS, registry=self._registry
        )
        self.customers = Counter("tiermodel_customers_scored", "Customers scored.", ["tier"], registry=self._registry)
        self.quarantined = Counter(
            "tiermodel_rows_quarantined", "Rows that broke the contract.", ["table", "rule"], registry=self._registry
        )
        self.model = Gauge("tiermodel_model", "The model in use: 1.", ["version"], registry=self._registry)
        self.swaps = Counter("tiermodel_model_swaps", "Models taken over from the registry.", registry=self._registry)
        self.failures = Counter(
            "tiermodel_model_refresh_failures", "Looks at the registry that failed.", registry=self._registry
        )

    def uses(self, version: str) -> None:
        """Say which model is in use."""
        self.model.clear()
        self.model.labels(version).set(1)

    def text(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)
