from nomadserve_runtime.engines.trt.monitor import Phases


class Told:
    def __init__(self) -> None:
        self.moves: list[tuple[str, float]] = []

    def say(self, text: str) -> None:
        raise AssertionError("a phase is no line of its own")

    def moving(self, phase: str, share: float) -> None:
        self.moves.append((phase, round(share, 4)))


def test_phases_inside_of_phases_make_one_share_of_the_whole() -> None:
    told = Told()
    phases = Phases(told)
    phases.start("Building engine", None, 4)
    phases.step("Building engine", 0)
    phases.start("Optimizing graph", "Building engine", 2)
    phases.step("Optimizing graph", 0)
    phases.start("Timing", "Optimizing graph", 2)
    phases.step("Timing", 0)
    assert [share for _, share in told.moves] == [0, 0.25, 0.25, 0.375, 0.375, 0.4375]
    assert told.moves[-1][0] == "timing"


def test_the_share_never_goes_back() -> None:
    told = Told()
    phases = Phases(told)
    phases.start("Building engine", None, 2)
    phases.start("a", "Building engine", 1)
    phases.step("a", 0)
    phases.finish("a")
    phases.start("b", "Building engine", 10)
    phases.step("Building engine", 1)
    shares = [share for _, share in told.moves]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_step_of_a_phase_that_nobody_announced_is_harmless() -> None:
    assert Phases(None).step("x", 3)


def test_a_cancelled_build_is_told_so_at_its_next_step() -> None:
    phases = Phases(None)
    phases.start("Building engine", None, 4)
    assert phases.step("Building engine", 0)
    phases.cancel()
    assert not phases.step("Building engine", 1)
    assert phases.is_cancelled
