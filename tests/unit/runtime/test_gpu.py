import asyncio
import logging

import pytest

from nomadserve_runtime import gpu
from nomadserve_runtime.gpu import are_given, show_only_given, start_sampling
from nomadserve_runtime.metrics import Series
from tests.unit.runtime.fake_nvml import Card, install, remove

A, B = "GPU-aaaa1111-0000-0000-0000-000000000001", "GPU-bbbb2222-0000-0000-0000-000000000002"
SLICE = "MIG-cccc3333-0000-0000-0000-000000000003"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (A, A),
        (f"{A},{B}", f"{A},{B}"),
        (SLICE, SLICE),
        ("none", ""),
        ("all", None),
        ("void", None),
        ("", None),
        ("2", None),
        (f"{A},1", None),
    ],
)
def test_cuda_sees_the_named_gpus_that_the_task_was_given(
    given: str, shown: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"NVIDIA_VISIBLE_DEVICES": given}
    with caplog.at_level(logging.INFO):
        show_only_given(environ)
    assert environ.get("CUDA_VISIBLE_DEVICES") == shown
    assert caplog.messages == (
        [] if shown is None else [f"CUDA sees the GPUs that this task was given: {shown or 'none'}"]
    )


@pytest.mark.parametrize("chosen", ["1", "", B])
def test_a_choice_that_was_made_before_wins(chosen: str) -> None:
    environ = {"NVIDIA_VISIBLE_DEVICES": A, "CUDA_VISIBLE_DEVICES": chosen}
    show_only_given(environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == chosen


def test_without_the_variable_nothing_is_set() -> None:
    environ: dict[str, str] = {}
    show_only_given(environ)
    assert environ == {}


@pytest.mark.parametrize(
    ("environ", "given"),
    [
        ({}, False),
        ({"NVIDIA_VISIBLE_DEVICES": A}, True),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, True),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, False),
        ({"NVIDIA_VISIBLE_DEVICES": A, "CUDA_VISIBLE_DEVICES": ""}, False),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, False),
        ({"CUDA_VISIBLE_DEVICES": "0"}, True),
    ],
)
def test_a_process_without_gpus_knows_it(environ: dict[str, str], given: bool) -> None:
    assert are_given(environ) is given


def sampled(environ: dict[str, str]) -> list[str]:
    sampler = start_sampling(environ)
    assert sampler is not None
    sampler.close()
    return [reading.gpu for reading in sampler.readings]


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (None, [A, B]),
        ("", []),
        ("1", [B]),
        ("1,0", [B, A]),
        ("1,7,0", [B]),
        (B, [B]),
        ("GPU-bbbb", [B]),
        (f"{A}, {B}", [A, B]),
        (SLICE, [SLICE]),
        ("GPU-gone", []),
        ("-1", []),
    ],
)
def test_those_are_measured_that_cuda_sees(
    shown: str | None, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Card(A), Card(B), Card(SLICE, is_slice=True))
    assert sampled({} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}) == wanted


def test_the_driver_is_let_go_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = install(monkeypatch, Card(A))
    sampler = start_sampling({})
    assert sampler is not None
    assert driver.users == 1
    sampler.close()
    assert driver.users == 0


def test_a_missing_driver_is_one_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remove(monkeypatch)
    with caplog.at_level(logging.INFO):
        assert start_sampling({}) is None
    assert caplog.messages == ["no GPU metrics: the NVIDIA driver does not answer: NVML Shared Library Not Found"]


def value(series: Series, name: str, uuid: str) -> float | None:
    return series.registry.get_sample_value(f"nomadserve_gpu_{name}", {"gpu": uuid})


@pytest.fixture
def series() -> Series:
    return Series()


def test_every_gpu_has_its_series(series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Card(A, utilization=70), Card(B, utilization=10))
    sampler = start_sampling({})
    assert sampler is not None
    series.gpus = lambda: sampler.readings
    sampler.close()
    assert [value(series, "utilization", uuid) for uuid in (A, B)] == [70, 10]
    assert value(series, "memory_used_bytes", A) == 3 * 2**30
    assert value(series, "memory_total_bytes", A) == 24 * 2**30
    assert value(series, "power_watts", A) == 61.5
    assert value(series, "temperature_celsius", A) == 44


def test_what_a_slice_of_a_gpu_does_not_tell_is_left_out(series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Card(SLICE, utilization=None, milliwatts=None, celsius=None, is_slice=True))
    sampler = start_sampling({"CUDA_VISIBLE_DEVICES": SLICE})
    assert sampler is not None
    sampler.close()
    series.gpus = lambda: sampler.readings
    assert value(series, "memory_used_bytes", SLICE) == 3 * 2**30
    assert [value(series, name, SLICE) for name in ("utilization", "power_watts", "temperature_celsius")] == [None] * 3


def test_utilization_is_the_mean_of_the_last_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(A, utilization=0)
    install(monkeypatch, card)
    sampler = start_sampling({})
    assert sampler is not None
    sampler.close()
    card.utilization = 100
    sampler.sample()
    assert sampler.readings[0].utilization == 50
    for _ in range(gpu.SAMPLES):
        sampler.sample()
    assert sampler.readings[0].utilization == 100


def test_the_thread_samples_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(A, used=1)
    install(monkeypatch, card)
    monkeypatch.setattr(gpu, "SAMPLE_EVERY_S", 0.001)
    sampler = start_sampling({})
    assert sampler is not None
    card.used = 2

    async def see() -> None:
        async with asyncio.timeout(20):
            while sampler.readings[0].memory_used_bytes != 2:
                await asyncio.sleep(0.001)

    asyncio.run(see())
    sampler.close()


def test_without_gpus_there_are_no_series_of_them(series: Series) -> None:
    assert b"nomadserve_gpu" not in series.render()


def test_a_driver_without_gpus_has_no_readings(series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    assert sampled({}) == []
