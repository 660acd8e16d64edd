"""What the server counts, for Prometheus, in the registry that `/metrics` shows.

Labels are of few values: a signature that the model does not have is counted as `unknown`.
"""

import prometheus_client

SECONDS = (.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)

REQUESTS = prometheus_client.Counter(
    "elo_requests", "Answered requests.", ("protocol", "signature", "status"))
REQUEST_SECONDS = prometheus_client.Histogram(
    "elo_request_seconds", "From the head of a request to its answer.", ("protocol", "signature"),
    buckets=SECONDS)
BATCH_CLIPS = prometheus_client.Histogram(
    "elo_batch_clips", "Clips of a call of the model.", ("signature",), buckets=SIZES)
BATCH_SECONDS = prometheus_client.Histogram(
    "elo_batch_seconds", "A call of the model.", ("signature",), buckets=SECONDS)
QUEUE_CLIPS = prometheus_client.Gauge(
    "elo_queue_clips", "Clips accepted and not yet answered.")
HELD_BYTES = prometheus_client.Gauge(
    "elo_held_bytes", "Bodies of requests in memory.")
READY = prometheus_client.Gauge("elo_ready", "1 once the warm-up requests ran.")
UNKNOWN = "unknown"
