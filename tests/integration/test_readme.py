"""What the README prints is what works."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import Cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def shell_block(after: str) -> str:
    """The first shell block behind a line of the README."""
    found = re.search(r"```sh\n(.*?)```", README[README.index(after) :], re.DOTALL)
    assert found is not None
    return found[1]


def test_the_start_by_hand_works_as_printed(bare_cli: Cli, tmp_path: Path) -> None:
    commands = shell_block("The same by hand:")
    assert commands.count("nomadserve ") >= 8
    # A state folder of its own: `default` is this test's cluster then, and not the user's.
    environment = bare_cli.environment | {"XDG_STATE_HOME": str(tmp_path)}
    try:
        done = subprocess.run(
            ["bash", "-euc", commands],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=240,
            check=False,
        )
    finally:
        Cli(environment)("dev", "down")
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"model":"digits","version":"v' in done.stdout


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", README))))
def test_every_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
