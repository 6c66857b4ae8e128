"""`nomadserve split`."""

import click

from nomadserve.cli.progress import tell
from nomadserve.operations.cluster import cluster_from
from nomadserve.operations.split import split
from nomadserve.weights import parse_weights


@click.command()
@click.argument("service")
@click.argument("weights", nargs=-1, required=True, metavar="VERSION=PERCENT...")
@click.option("--force", is_flag=True, help="Give traffic to a version without healthy replicas, too.")
@click.option("--scale-first", is_flag=True, help="Start the replicas that the measured load needs before it moves.")
@click.option("--json", "as_json", is_flag=True, help="Report each step as a line of JSON on stdout.")
def command(service: str, weights: tuple[str, ...], force: bool, scale_first: bool, as_json: bool) -> None:
    """Share the traffic of SERVICE between its versions: `nomadserve split my-api v1=90 v2=10`.

    The shares add up to 100; a version not named gets nothing. Returns once every gateway serves them.
    """
    wanted = parse_weights(weights)
    with cluster_from() as cluster:
        tell(split(cluster, service, wanted, is_forced=force, scales_first=scale_first), as_json=as_json)
