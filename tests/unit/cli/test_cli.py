import click
import pytest

from nomadserve import cli
from nomadserve.errors import BlockedOnCapacity, NomadserveError, TimedOut, WrongInput


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_tells_what_it_does(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([verb, "--help"]) == 0
    assert f"Usage: nomadserve {verb}" in capsys.readouterr().out


def test_help_lists_all_verbs_without_importing_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in cli.VERBS)


def test_a_misspelt_verb_is_met_with_the_one_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["splti", "digits"]) == 2
    assert capsys.readouterr().err == "error: there is no command `splti`\nhint: did you mean `nomadserve split`?\n"


def test_a_wrong_option_points_to_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["split", "--nope"]) == 2
    assert "hint: `nomadserve split --help` lists what it takes" in capsys.readouterr().err


def test_wrong_weights_are_refused_before_anything_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["split", "my-api", "v1=90", "v2=20"]) == 2
    assert capsys.readouterr().err == (
        "error: weights add up to 110, not 100\nhint: give every version its share: `v1=90 v2=10`\n"
    )


@pytest.mark.parametrize(
    ("error", "code"), [(NomadserveError, 1), (WrongInput, 2), (TimedOut, 3), (BlockedOnCapacity, 4)]
)
def test_each_kind_of_error_has_its_exit_code(
    error: type[NomadserveError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def command() -> None:
        raise error("it broke", hint="mend it")

    monkeypatch.setattr(cli.Verbs, "get_command", lambda *_: command)
    assert cli.run(["up"]) == code
    assert capsys.readouterr().err == "error: it broke\nhint: mend it\n"


def test_an_unreachable_cluster_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Port 1 of loopback: nothing listens there, and the refusal comes from this machine's own kernel.
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "http://127.0.0.1:1")
    assert cli.run(["status"]) == 1
    printed = capsys.readouterr().err
    assert "error: no Consul answers at http://127.0.0.1:1" in printed
    assert "nomadserve dev up" in printed
