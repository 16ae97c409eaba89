"""Numbers for Prometheus: requests and uploads as they happen, jobs and queues when scraped."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from loramend.contracts.job import JobStatus
from service.jobs.records import Queue

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The registry of one application. Times in seconds."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "loramend_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "loramend_http_request_seconds",
            "From a request's first byte to its answer's last.",
            ["method", "route"],
            registry=self._registry,
        )
        self._uploaded = Counter(
            "loramend_upload_bytes", "Bytes of adapters and text received and kept.", registry=self._registry
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        known = method if method in {"GET", "HEAD", "POST", "PUT", "DELETE"} else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)

    def uploaded(self, size: int) -> None:
        """Count the bytes of files that were received and kept."""
        self._uploaded.inc(size)

    def exposition(self, jobs: Mapping[JobStatus, int], queues: Mapping[Queue, int], workers: int) -> bytes:
        """Prometheus' text format, with the given counts of jobs by status and tasks by queue."""
        snapshot = CollectorRegistry()
        snapshot.register(_Snapshot(jobs, queues, workers))
        return generate_latest(self._registry) + generate_latest(snapshot)


class _Snapshot:
    def __init__(self, jobs: Mapping[JobStatus, int], queues: Mapping[Queue, int], workers: int) -> None:
        self._jobs = jobs
        self._queues = queues
        self._workers = workers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("loramend_jobs", "Jobs in the store, by status.", labels=["status"])
        for status, count in sorted(self._jobs.items()):
            jobs.add_metric([status], count)
        yield jobs
        queues = GaugeMetricFamily("loramend_queue_depth", "Tasks that wait, by queue.", labels=["queue"])
        for queue, depth in sorted(self._queues.items()):
            queues.add_metric([queue], depth)
        yield queues
        yield GaugeMetricFamily("loramend_workers", "Workers with a live heartbeat.", value=self._workers)
