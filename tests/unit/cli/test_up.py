from nomadserve import spec
from nomadserve.cli.up import patience_s

ONNX = spec.Model(name="m", source="https://models.example/m.onnx")
PLAN = spec.Model(name="m", source="https://models.example/m.plan")


def test_a_deployment_that_builds_is_followed_as_long_as_it_may_take() -> None:
    assert patience_s(spec.Service(name="m", models=(ONNX,))) == 900
    assert patience_s(spec.Service(name="m", models=(ONNX,), gpu=spec.Gpu())) == 3600
    assert patience_s(spec.Service(name="m", models=(PLAN,), gpu=spec.Gpu())) == 900
    update = spec.Update(progress_deadline=spec.Seconds(7200))
    assert patience_s(spec.Service(name="m", models=(ONNX,), gpu=spec.Gpu(), update=update)) == 7200
