"""What is read of a replica beside the load, from a server that answers as one would."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nomadserve.errors import WrongInput
from nomadserve.operations.bench.replica import Counters, NoReplica, Replica

METRICS = """# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 12.5
# TYPE nomadserve_in_flight gauge
nomadserve_in_flight{model="digits"} 0.0
nomadserve_in_flight{model="letters"} 0.0
# TYPE nomadserve_batch_rows histogram
nomadserve_batch_rows_bucket{le="1.0",model="digits"} 3.0
nomadserve_batch_rows_bucket{le="+Inf",model="digits"} 4.0
nomadserve_batch_rows_count{model="digits"} 4.0
nomadserve_batch_rows_sum{model="digits"} 19.0
nomadserve_batch_rows_bucket{le="+Inf",model="letters"} 1.0
nomadserve_batch_rows_count{model="letters"} 1.0
nomadserve_batch_rows_sum{model="letters"} 1.0
"""


@contextmanager
def answering(status: int, text: str) -> Iterator[Replica]:
    """A server that gives every request this answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self.rfile.read(length)
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    replica = Replica("127.0.0.1", server.server_port)
    try:
        yield replica
    finally:
        replica.close()
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_counters_are_those_of_the_model() -> None:
    with answering(200, METRICS) as replica:
        assert replica.counters("digits") == Counters(batches=4, rows=19, cpu_seconds=12.5)


def test_the_models_are_those_that_the_metrics_name() -> None:
    with answering(200, METRICS) as replica:
        assert replica.models() == ["digits", "letters"]


def test_a_gateway_shows_no_metrics() -> None:
    with answering(404, "") as replica:
        assert replica.counters("digits") is None
        assert replica.models() == []


def test_a_refused_payload_is_the_users_mistake() -> None:
    with (
        answering(400, '{"error": "input `image` is missing"}') as replica,
        pytest.raises(WrongInput, match=r"answers 400 to the first request: .*input `image` is missing"),
    ):
        replica.post("/v1/inference", "{}")


def test_a_replica_that_refuses_one_request_can_not_be_measured() -> None:
    with answering(503, "draining") as replica, pytest.raises(NoReplica, match="refuses a single request: draining"):
        replica.post("/v1/inference", "{}")


def test_a_model_that_is_not_there_is_the_users_mistake() -> None:
    with answering(404, "no model") as replica, pytest.raises(WrongInput, match="no metadata of a model `digits`"):
        replica.metadata("digits")
