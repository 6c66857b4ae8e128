"""Send handwritten digits to a service by its DNS name, and count which version answered and how well.

    python examples/digits/send.py --requests 2000 --connections 8

Plain HTTP and JSON: one image a request to `http://digits.service.consul/v1/inference`. The name is asked of Consul's
DNS (`CONSUL_DNS_ADDR`, default 127.0.0.1:8600), whose SRV records name the address and the port of the gateways.
Nothing is retried: a request that isn't answered well is counted as failed.
"""

import argparse
import http.client
import itertools
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import dns.exception
import dns.resolver

TEST_IMAGES = Path(__file__).with_name("test-images.json")
REQUEST_TIMEOUT_S = 30.0
SECONDS_MAX = 300.0  # no run lasts longer, whatever was asked for

Endpoint = tuple[str, int]  # address, port


@dataclass
class Counts:
    """What came back: `answered` and `right` by version, `failed` by reason."""

    answered: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, other: "Counts") -> None:
        """Take in what another thread counted."""
        self.answered += other.answered
        self.right += other.right
        self.failed += other.failed

    @property
    def requests(self) -> int:
        """All that were sent, failed ones included."""
        return self.answered.total() + self.failed.total()

    def share(self, version: str) -> float:
        """The part of all answers that came from `version`, 0 to 1."""
        return self.answered[version] / self.answered.total()

    def accuracy(self, version: str) -> float:
        """The part of the answers of `version` that named the right digit, 0 to 1."""
        return self.right[version] / self.answered[version]


def resolve(name: str, dns_address: str) -> list[Endpoint]:
    """Ask `dns_address` (host:port) for the SRV records of `name`: addresses and ports, in the order given."""
    host, _, port = dns_address.rpartition(":")
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = [host], int(port), 5.0
    endpoints = []
    for record in resolver.resolve(name, "SRV"):
        address = next(iter(resolver.resolve(record.target, "A"))).address
        endpoints.append((address, record.port))
    return endpoints


def ask(connection: http.client.HTTPConnection, host: str, image: Sequence[int]) -> tuple[str, int]:
    """Send one image over an open connection; return the version that answered and the digit that it saw."""
    body = json.dumps({"inputs": {"image": [image]}})
    connection.request("POST", "/v1/inference", body, {"Host": host, "Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise ValueError(f"status {response.status}: {content[:200].decode(errors='replace')}")
    reply = json.loads(content)
    scores = list(reply["outputs"]["scores"][0])
    return reply["version"], scores.index(max(scores))


def send(
    service: str = "digits",
    *,
    requests: int | None = 2000,
    connections: int = 8,
    seconds: float = SECONDS_MAX,
    dns_address: str | None = None,
    endpoints: Sequence[Endpoint] = (),
) -> Counts:
    """Send test images, each thread over a kept-alive connection of its own, and count the replies.

    Ends after `requests` (None: no limit) or `seconds`, whichever comes first.

    Args:
        service: the service's name; asked for as `SERVICE.service.consul`, and named so in the Host header.
        requests: how many requests, over all connections.
        connections: how many at the same time.
        seconds: start no request later than this.
        dns_address: Consul's DNS as host:port; default `CONSUL_DNS_ADDR`, else 127.0.0.1:8600.
        endpoints: addresses and ports to send to without asking the DNS.
    """
    host = f"{service}.service.consul"
    if not endpoints:
        endpoints = resolve(host, dns_address or os.environ.get("CONSUL_DNS_ADDR", "127.0.0.1:8600"))
    test = json.loads(TEST_IMAGES.read_text())
    images: list[tuple[list[int], int]] = list(zip(test["images"], test["labels"], strict=True))
    numbers: Iterator[int] = itertools.count() if requests is None else iter(range(requests))
    stop = threading.Event()
    begin = time.monotonic()
    end = begin + min(seconds, SECONDS_MAX)

    def work(endpoint: Endpoint) -> Counts:
        counts = Counts()
        connection = http.client.HTTPConnection(*endpoint, timeout=REQUEST_TIMEOUT_S)
        for number in numbers:  # shared by all threads: each number is taken once
            if stop.is_set() or time.monotonic() >= end:
                break
            image, label = images[number % len(images)]
            try:
                version, digit = ask(connection, host, image)
            except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
                counts.failed[str(error) or type(error).__name__] += 1
                connection.close()  # the next request opens a new one
            else:
                counts.answered[version] += 1
                counts.right[version] += digit == label
        connection.close()
        return counts

    total = Counts()
    with ThreadPoolExecutor(connections) as pool:
        running = [pool.submit(work, endpoints[index % len(endpoints)]) for index in range(connections)]
        try:
            for part in running:
                total.add(part.result())
        finally:
            stop.set()  # Ctrl-C, or a bug in one thread, ends them all
    total.seconds = time.monotonic() - begin
    return total


def as_table(counts: Counts) -> str:
    lines = [f"{'version':<10}{'requests':>10}{'share':>10}{'accuracy':>10}"]
    for version in sorted(counts.answered):
        share, accuracy = f"{counts.share(version):.1%}", f"{counts.accuracy(version):.1%}"
        lines.append(f"{version:<10}{counts.answered[version]:>10}{share:>10}{accuracy:>10}")
    rate = counts.requests / counts.seconds if counts.seconds else 0.0
    failed = counts.failed.total()
    lines.append(f"{counts.requests} requests in {counts.seconds:.1f} s ({rate:.0f}/s), {failed} failed")
    lines += [f"  failed: {count} x {reason}" for reason, count in counts.failed.most_common()]
    return "\n".join(lines)


def as_json(counts: Counts) -> str:
    versions = {
        version: {
            "requests": counts.answered[version],
            "share": counts.share(version),
            "accuracy": counts.accuracy(version),
        }
        for version in sorted(counts.answered)
    }
    failed = counts.failed.total()
    whole = {"requests": counts.requests, "failed": failed, "failures": dict(counts.failed), "versions": versions}
    return json.dumps({**whole, "seconds": counts.seconds})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="send handwritten digits, count versions and right answers")
    parser.add_argument("--service", default="digits", help="asked for as SERVICE.service.consul (%(default)s)")
    parser.add_argument("--requests", type=int, help="how many (2000; with --seconds: as many as fit)")
    parser.add_argument("--connections", type=int, default=8, help="how many at the same time (%(default)s)")
    parser.add_argument("--seconds", type=float, help=f"stop after this time (at most {SECONDS_MAX:.0f})")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    requests = options.requests if options.requests or options.seconds else 2000
    try:
        counts = send(
            options.service,
            requests=requests,
            connections=options.connections,
            seconds=options.seconds or SECONDS_MAX,
        )
    except dns.exception.DNSException as error:
        reason = "the DNS does not answer" if isinstance(error, dns.exception.Timeout) else error
        print(f"error: no address for `{options.service}.service.consul`: {reason}", file=sys.stderr)
        print("hint: is it deployed (`nomadserve status`)? is `CONSUL_DNS_ADDR` its cluster's DNS?", file=sys.stderr)
        return 1
    print(as_json(counts) if options.json else as_table(counts))
    cut_short = not options.seconds and counts.requests < (requests or 0)
    return 1 if counts.failed or cut_short or not counts.answered else 0


if __name__ == "__main__":
    sys.exit(main())
