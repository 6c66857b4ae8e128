"""The command line: one file a verb, loaded only when that verb is asked for."""

import difflib
import importlib
import sys

import click

from nomadserve.cli import output
from nomadserve.errors import NomadserveError, WrongInput

# In the order in which a newcomer meets them; `--help` keeps it.
VERBS = {
    "dev": "a real local cluster: Consul, Nomad, the gateway, and what scales",
    "engines": "install and list the real parts: Nomad, Consul, Envoy, …",
    "platform": "the gateway, Prometheus and the Autoscaler on an existing cluster",
    "render": "print the Nomad job that a service file becomes",
    "plan": "show what `up` would change, and change nothing",
    "up": "deploy a version of a service and follow it until healthy",
    "split": "share traffic between the versions of a service",
    "status": "versions, weights, health and replicas of services",
    "call": "send one request to a service by its Consul DNS name",
    "down": "stop a version, or a service and all its versions",
    "serve": "serve a model file here, without a cluster",
    "build": "make a TensorRT plan of an ONNX model, here or on a node of the cluster",
    "bench": "find what one replica takes, and what to scale by",
    "simulate": "replay traffic against a file's scaling, before users meet it",
}


class Verbs(click.Group):
    """Imports `nomadserve.cli.VERB` when VERB is named, so that every verb starts as fast as its own imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in their order of use."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The click command of one verb, or None where there is none of that name."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"nomadserve.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but a misspelt verb is met with the one that was probably meant."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            meant = difflib.get_close_matches(args[0], VERBS, n=1)
            raise WrongInput(
                f"there is no command `{args[0]}`",
                hint=f"did you mean `nomadserve {meant[0]}`?" if meant else "`nomadserve --help` lists them",
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs from `VERBS`, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nomadserve")
def cli() -> None:
    """Deploy, route and serve model inference on your own machines, with Nomad and Consul."""


def main() -> None:
    """The console script: run a verb; print what went wrong; exit with a code that tells (see `errors`)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        code = cli.main(args=arguments, prog_name="nomadserve", standalone_mode=False)
    except NomadserveError as error:
        output.error(error.message)
        if error.hint:
            output.hint(error.hint)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        output.say(error.format_message())
        return WrongInput.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "nomadserve"
        output.error(error.format_message())
        output.hint(f"`{path} --help` lists what it takes")
        return WrongInput.exit_code
    except (KeyboardInterrupt, click.Abort):
        output.say("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of stdout went away (`nomadserve … | head`): nothing is left to say, and nobody to say it to.
        sys.stderr.close()
        return 1
    return code if isinstance(code, int) else 0
