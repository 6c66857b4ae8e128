from pathlib import Path

import pytest

from nomadserve.errors import WrongInput
from nomadserve.operations.bench.knee import Limits
from nomadserve.operations.bench.measure import load_at
from nomadserve.operations.bench.subject import is_file, running
from nomadserve.operations.bench.wishes import Wishes

WISHES = Wishes(limits=Limits(p99_s=0.5, error_share=0.01), step_s=5, settle_s=1)


def test_a_model_file_is_told_from_a_service_and_an_address(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.touch()
    assert is_file(str(file))
    assert is_file("nowhere.onnx")  # so that the error speaks of a file
    assert not is_file("digits")
    assert not is_file("http://127.0.0.1:8000")


def test_an_address_needs_no_cluster() -> None:
    subject = running("http://127.0.0.1:8000/", version=None, through_gateway=False, environ={})
    assert (subject.replica.address, subject.replica.port) == ("127.0.0.1", 8000)
    assert subject.startup_s is None


def test_a_service_needs_its_version() -> None:
    with pytest.raises(WrongInput, match="which version of `digits`") as caught:
        running("digits", version=None, through_gateway=False, environ={})
    assert "nomadserve bench digits --version" in caught.value.hint


def test_a_step_lasts_as_long_as_wished_after_it_settled() -> None:
    load = load_at(100, WISHES)
    assert (load.seconds, load.settle_seconds, load.drain) == (6, 1, True)


def test_a_slow_rate_is_measured_for_longer_but_not_for_ever() -> None:
    assert load_at(4, WISHES).seconds == 1 + 25
    assert load_at(0.1, WISHES).seconds == 1 + 60


def test_a_reply_is_waited_for_ten_times_the_limit() -> None:
    assert load_at(100, WISHES).timeout_s == 5
    tight = Wishes(limits=Limits(p99_s=0.01, error_share=0.01))
    assert load_at(100, tight).timeout_s == 2
