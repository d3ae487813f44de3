"""What a service measures, in a Prometheus registry of its own."""

from collections.abc import Callable
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Rates, errors and durations of a service; durations in seconds. `target_info` carries the service's name."""

    def __init__(self, service: str):
        self.registry = registry = CollectorRegistry(target_info={"service_name": service})
        ProcessCollector(registry=registry)
        self._server: WSGIServer | None = None
        self._thread: Thread | None = None
        self._rpc = Histogram(
            "polymart_rpc_seconds",
            "Handling of an RPC, by full method name and gRPC code",
            ["method", "code"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._message = Histogram(
            "polymart_message_seconds",
            "Handling of a message, from its fetch to its outcome",
            ["type", "outcome"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._outbox_entries = Gauge("polymart_outbox_entries", "Messages waiting for the relay", registry=registry)
        self._outbox_oldest = Gauge(
            "polymart_outbox_oldest_seconds", "Age of the oldest message in the outbox", registry=registry
        )
        self._lag = Gauge(
            "polymart_consumer_lag",
            "Messages a durable consumer has yet to acknowledge",
            ["consumer"],
            registry=registry,
        )
        self._projection = Histogram(
            "polymart_projection_lag_seconds",
            "From an event's time until a projection had it",
            ["type"],
            registry=registry,
            buckets=(*_BUCKETS, 30, 60, 300, 3600),
        )
        self._dead_letters = Counter(
            "polymart_dead_letters_total",
            "Messages put in the DLQ",
            ["consumer", "type"],
            registry=registry,
        )

    def rpc(self, method: str, code: str, seconds: float) -> None:
        self._rpc.labels(method, code).observe(seconds)

    def message(self, type: str, outcome: str, seconds: float, count: int = 1) -> None:
        """`count` messages that took the same time."""
        series = self._message.labels(type, outcome)
        for _ in range(count):
            series.observe(seconds)

    def dead_letter(self, consumer: str, type: str) -> None:
        self._dead_letters.labels(consumer, type).inc()

    def outbox(self, entries: int, oldest_seconds: float) -> None:
        self._outbox_entries.set(entries)
        self._outbox_oldest.set(oldest_seconds)

    def lag(self, consumer: str, pending: int) -> None:
        self._lag.labels(consumer).set(pending)

    def projected(self, type: str, seconds: float) -> None:
        self._projection.labels(type).observe(seconds)

    def watch_projection(self, behind: Callable[[], float | None]) -> None:
        """Show how many seconds a projection is behind, as `behind` says whenever it is asked."""
        gauge = Gauge(
            "polymart_projection_behind_seconds",
            "Age of the oldest event that a projection has in hand or, where it has none, what it was of the last",
            registry=self.registry,
        )
        gauge.set_function(lambda: behind() or 0.0)

    def serve(self, host: str, port: int) -> int:
        """Answer GET /metrics from a thread. Returns the port, a free one for 0; raises OSError if it is taken."""
        self._server, self._thread = start_http_server(port, host, self.registry)
        return self._server.server_port

    def close(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None
