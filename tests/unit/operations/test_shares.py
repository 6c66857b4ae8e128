import itertools
import random

import pytest

from nomadserve.operations.shares import Claim, NoRoom, shares


@pytest.mark.parametrize(
    ("ceiling", "claims", "expected"),
    [
        (8, {"v1": Claim(1, 6, 100)}, {"v1": 6}),
        (8, {"v1": Claim(1, 6, 100), "v2": Claim(1, 6, 0)}, {"v1": 6, "v2": 2}),
        (6, {"v1": Claim(1, 6, 100), "v2": Claim(1, 6, 0)}, {"v1": 5, "v2": 1}),
        (10, {"v1": Claim(1, 10, 90), "v2": Claim(1, 10, 10)}, {"v1": 9, "v2": 1}),
        (10, {"v1": Claim(1, 10, 50), "v2": Claim(1, 10, 50)}, {"v1": 5, "v2": 5}),
        (7, {"v1": Claim(1, 10, 50), "v2": Claim(1, 10, 50)}, {"v1": 4, "v2": 3}),
        (9, {"v1": Claim(1, 2, 90), "v2": Claim(1, 10, 10)}, {"v1": 2, "v2": 7}),
        (9, {"v1": Claim(3, 3, 0), "v2": Claim(1, 10, 100)}, {"v1": 3, "v2": 6}),
        (4, {"v1": Claim(1, 9, 0), "v2": Claim(1, 9, 0)}, {"v1": 2, "v2": 2}),
        (20, {"v1": Claim(1, 6, 30), "v2": Claim(1, 6, 70)}, {"v1": 6, "v2": 6}),
        (0, {}, {}),
    ],
    ids=[
        "a lone version has its own max",
        "what traffic does not use is left to the version without any",
        "a version without traffic keeps its min",
        "traffic decides",
        "even",
        "a tie goes to the first",
        "what one can't use the other gets",
        "a fixed count is neither more nor less",
        "without any traffic evenly",
        "a high ceiling changes nothing",
        "no version",
    ],
)
def test_shares_follow_the_traffic(ceiling: int, claims: dict[str, Claim], expected: dict[str, int]) -> None:
    assert shares(ceiling, claims) == expected


def test_less_than_every_least_is_no_room() -> None:
    with pytest.raises(NoRoom):
        shares(3, {"v1": Claim(2, 4, 100), "v2": Claim(2, 4, 0)})


def random_claims(chance: random.Random) -> dict[str, Claim]:
    found = {}
    for number in range(chance.randint(1, 5)):
        least = chance.randint(0, 4)
        found[f"v{number}"] = Claim(least, least + chance.randint(0, 9), chance.choice([0, 0, 1, 10, 33.3, 50, 100]))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_asked_for_the_sum_never_exceeds_the_ceiling_and_every_bound_holds(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(500):
        claims = random_claims(chance)
        least, most = (sum(getattr(claim, key) for claim in claims.values()) for key in ("least", "most"))
        ceiling = least + chance.randint(0, 20)
        found = shares(ceiling, claims)
        assert sum(found.values()) == min(ceiling, most), "nothing is wasted, and nothing is given twice"
        assert all(claims[version].least <= share <= claims[version].most for version, share in found.items())
        more = shares(ceiling + 1, claims)
        assert all(more[version] >= share for version, share in found.items()), "a higher ceiling takes from nobody"
        for one, other in itertools.permutations(claims, 2):
            if claims[one].weight > claims[other].weight and found[one] < claims[one].most:
                assert found[other] <= max(found[one] + 1, claims[other].least), "more traffic, no smaller a share"
