"""What Locust runs for `bench --ui`: in Locust's own process, and perhaps its own environment, so without nomadserve.

Source: https://docs.locust.io/en/stable/writing-a-locustfile.html
"""

import itertools
import json
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant_throughput, events, task

PLAN = "NOMADSERVE_LOCUST_PLAN"
"""Variable with the path of the plan: JSON with `host`, `path`, `headers`, `bodies` and the `parent`'s process id."""

LOOK_EVERY_S = 1.0

plan = json.loads(Path(os.environ[PLAN]).read_text())
bodies = itertools.cycle([body.encode() for body in plan["bodies"]])
headers = {"Content-Type": "application/json", "Host": plan["host"], **plan["headers"]}


@events.init_command_line_parser.add_listener
def add_rate(parser: ArgumentParser) -> None:
    """A field of the page's form, beside the number of users."""
    parser.add_argument(
        "--requests-per-second",
        type=float,
        default=1.0,
        help="Of each user, at most; users × this is the rate that is offered",
    )


@events.init.add_listener
def end_with_parent(environment: Any, **_: Any) -> None:
    """Whatever became of `nomadserve bench`, Locust does not outlive it."""

    def look() -> None:
        while os.getppid() == plan["parent"]:
            gevent.sleep(LOOK_EVERY_S)
        environment.runner.quit()
        environment.web_ui.stop()

    gevent.spawn(look)


class Client(FastHttpUser):
    """One connection: sends, waits for the reply, and sends again when its next request is due."""

    def wait_time(self) -> float:
        """Seconds until the next request is due; read anew each time, as the page can change the rate."""
        wait_s: float = constant_throughput(self.environment.parsed_options.requests_per_second)(self)
        return wait_s

    @task
    def infer(self) -> None:
        """One request; a full queue is told from other failures."""
        with self.client.post(plan["path"], data=next(bodies), headers=headers, catch_response=True) as reply:
            if reply.status_code == 503:
                reply.failure("503: refused")
            elif reply.status_code != 200:
                reply.failure(f"{reply.status_code}: {(reply.text or str(reply.error))[:200]}")
