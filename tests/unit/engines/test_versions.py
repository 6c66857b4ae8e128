import pytest

from nomadserve.engines.versions import Version, parse_version


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("Nomad v1.11.1\nBuildDate 2025-12-09T20:10:18Z\n", Version(1, 11, 1)),
        ("Consul v1.21.0+ent", Version(1, 21, 0)),
        ("Nomad Autoscaler v0.5.0-dev", Version(0, 5, 0)),
        ("./envoy  version: dc2d3098ae56/1.36.2/Clean/RELEASE/BoringSSL", Version(1, 36, 2)),
        ("prometheus, version 2.42.0+ds (branch: debian/sid, revision: 2.42.0+ds-5)", Version(2, 42, 0)),
        ("go version 1.26", Version(1, 26, 0)),
        ("command not found", None),
    ],
)
def test_version_is_read_from_what_each_engine_prints(printed: str, version: Version | None) -> None:
    assert parse_version(printed) == version


def test_versions_compare_as_numbers() -> None:
    assert Version(1, 9, 9) < Version(1, 10) < Version(1, 10, 1) < Version(2, 0)
