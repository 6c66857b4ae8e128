from pathlib import Path

import pytest

from nomadserve.engines.local import ports
from nomadserve.engines.local.record import Home, is_inside, known_names, read_cluster, reserve
from nomadserve.errors import NomadserveError, WrongInput
from tests.unit.engines.conftest import Talk


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(ports, "taken", lambda wanted: [])
    return tmp_path.resolve() / "nomadserve" / "clusters"


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "../a", "a" * 33, ".locks"])
def test_name_that_is_no_short_dns_label_is_refused(name: str) -> None:
    with pytest.raises(WrongInput, match="can't be the name of a cluster"):
        Home(name)


def test_reserved_cluster_is_read_back(talk: Talk, state: Path) -> None:
    made = reserve("demo", offset=None, nomad_config=("/etc/gpu.hcl",), progress=talk)

    assert read_cluster("demo") == made
    assert known_names() == ["demo"]
    assert made.environment() == {
        "NOMAD_ADDR": "http://127.0.0.1:4646",
        "CONSUL_HTTP_ADDR": "http://127.0.0.1:8500",
        "CONSUL_DNS_ADDR": "127.0.0.1:8600",
        "NOMADSERVE_GATEWAY": "http://127.0.0.1:8080",
    }
    assert (state / "demo").stat().st_mode & 0o777 == 0o700


def test_second_cluster_gets_the_next_offset_and_another_slot_although_the_first_is_not_running(talk: Talk) -> None:
    first = reserve("one", offset=None, nomad_config=(), progress=talk)
    second = reserve("two", offset=None, nomad_config=(), progress=talk)

    assert (first.offset, second.offset) == (0, 10)
    assert first.slot != second.slot


def test_offset_with_taken_ports_is_passed_over(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "taken", lambda wanted: [port for port in wanted if port in (8500, 4656)])

    assert reserve("demo", offset=None, nomad_config=(), progress=talk).offset == 20


def test_offset_asked_for_with_taken_ports_is_refused_by_their_numbers(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve("one", offset=30, nomad_config=(), progress=talk)
    monkeypatch.setattr(ports, "taken", lambda wanted: [8530, 8631])

    with pytest.raises(WrongInput, match="at port offset 30 these ports are taken: 4676, 4677, 4678, 8110") as raised:
        reserve("two", offset=30, nomad_config=(), progress=talk)
    assert "leave `--port-offset` out" in raised.value.hint
    assert known_names() == ["one"]


@pytest.mark.parametrize("offset", [-1, 1000, 60000])
def test_offset_out_of_range_is_refused(talk: Talk, offset: int) -> None:
    with pytest.raises(WrongInput, match=f"port offset {offset} is not between 0 and 999"):
        reserve("demo", offset=offset, nomad_config=(), progress=talk)


def test_no_offset_left_is_an_error_with_a_way_out(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "taken", lambda wanted: list(wanted))

    with pytest.raises(NomadserveError, match="no free set of ports") as raised:
        reserve("demo", offset=None, nomad_config=(), progress=talk)
    assert "nomadserve dev down --all" in raised.value.hint


@pytest.mark.parametrize("content", ["", "{", '{"name": "demo"}'])
def test_record_that_can_not_be_read_counts_as_none(state: Path, content: str) -> None:
    (state / "demo").mkdir(parents=True)
    (state / "demo" / "cluster.json").write_text(content)

    assert Home("demo").read() is None
    assert known_names() == ["demo"]


def test_cluster_that_is_not_there_is_an_error_that_says_how_to_start_it() -> None:
    with pytest.raises(WrongInput) as raised:
        read_cluster("demo")

    assert raised.value.message == "cluster `demo` is not up"
    assert raised.value.hint == "start it: `nomadserve dev up --name demo`"


def test_folder_beside_one_of_a_longer_name_is_not_inside_it() -> None:
    assert is_inside(Path("/a/b"), Path("/a/b"))
    assert is_inside(Path("/a/b/c"), Path("/a/b"))
    assert not is_inside(Path("/a/bc"), Path("/a/b"))
