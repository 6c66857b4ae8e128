"""Shares of traffic: `v1=90 v2=10` becomes a value that can't be wrong."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from types import MappingProxyType

from nomadserve.errors import WrongInput

Share = int | float

_FORM = "give every version its share: `v1=90 v2=10`"


@dataclass(frozen=True, slots=True)
class Weights:
    """Share of the traffic in percent per version, in the order given; adds up to 100.

    Consul keeps shares to a hundredth of a percent, so nothing finer is taken.
    """

    by_version: Mapping[str, Share]

    def __post_init__(self) -> None:
        shares = {version: _share(version, share) for version, share in self.by_version.items()}
        total = sum(shares.values(), Decimal(0))
        if total != 100:
            raise WrongInput(f"weights add up to {_text(total)}, not 100", hint=_suggestion(shares))
        plain = {version: _number(share) for version, share in shares.items()}
        object.__setattr__(self, "by_version", MappingProxyType(plain))

    def __str__(self) -> str:
        return " ".join(f"{version}={share}" for version, share in self.by_version.items())


def parse_weights(texts: Iterable[str]) -> Weights:
    """Read `["v1=90", "v2=10"]` as typed on the command line."""
    shares: dict[str, Share] = {}
    for text in texts:
        version, equals, share = text.partition("=")
        if not version or not equals or not share or version != version.strip():
            raise WrongInput(f"`{text}` is not a version and its share", hint=_FORM)
        if version in shares:
            raise WrongInput(f"version `{version}` is given twice", hint=_FORM)
        shares[version] = _parsed(version, share)
    if not shares:
        raise WrongInput("no weights given", hint=_FORM)
    return Weights(shares)


def _parsed(version: str, text: str) -> Share:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise WrongInput(f"the share of `{version}` is not a number: `{text}`", hint=_FORM) from None
    return _number(_share(version, number))


def _share(version: str, value: Share | Decimal) -> Decimal:
    share = value if isinstance(value, Decimal) else Decimal(str(value))
    if not share.is_finite():
        raise WrongInput(f"the share of `{version}` is not a number: `{value}`", hint=_FORM)
    if share < 0 or share > 100:
        problem = "negative" if share < 0 else "more than 100"
        raise WrongInput(f"the share of `{version}` is {problem}: `{value}`", hint="shares go from 0 to 100 percent")
    if share != round(share, 2):
        raise WrongInput(
            f"the share of `{version}` is finer than a hundredth of a percent: `{value}`",
            hint=f"Consul keeps two decimals: `{version}={_text(round(share, 2))}`",
        )
    return share


def _number(share: Decimal) -> Share:
    return int(share) if share == int(share) else float(share)


def _text(share: Decimal) -> str:
    return str(_number(share))


def _suggestion(shares: Mapping[str, Decimal]) -> str:
    """The same shares with the last one changed so that they add up, where that is possible."""
    if not shares:
        return _FORM
    *firsts, last = shares
    rest = 100 - sum((shares[version] for version in firsts), Decimal(0))
    if rest < 0:
        return _FORM
    wanted = {**{version: shares[version] for version in firsts}, last: rest}
    return (
        "give every version its share: `" + " ".join(f"{name}={_text(share)}" for name, share in wanted.items()) + "`"
    )
