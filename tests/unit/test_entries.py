import pytest

from nomadserve import entries
from nomadserve.weights import Weights

V1_V2 = Weights({"v1": 90, "v2": 10})


def names(found: list[entries.Entry]) -> list[str]:
    return [f"{entry['Kind']} {entry['Name']}" for entry in found]


def test_entries_come_in_the_order_that_consul_takes_them() -> None:
    assert names(entries.traffic_entries("digits", V1_V2, {})) == [
        "service-defaults digits-v1",
        "service-defaults digits-v2",
        "service-defaults digits",
        "service-splitter digits",
        "service-resolver digits-v1",
        "service-resolver digits-v2",
    ]


def test_versions_take_over_for_one_another_the_busiest_first() -> None:
    weights = Weights({"v1": 0, "v2": 70, "v3": 30})
    resolvers = [e for e in entries.traffic_entries("a", weights, {}) if e["Kind"] == "service-resolver"]
    targets = {e["Name"]: [t["Service"] for t in e["Failover"]["*"]["Targets"]] for e in resolvers}
    assert targets == {"a-v1": ["a-v2", "a-v3"], "a-v2": ["a-v3", "a-v1"], "a-v3": ["a-v2", "a-v1"]}


def test_a_lone_version_has_no_failover() -> None:
    assert "Failover" not in entries.resolver("digits", "v1", [])


def test_splitter_names_its_weights_in_every_reply() -> None:
    splits = entries.splitter("digits", V1_V2, {})["Splits"]
    assert [split["Weight"] for split in splits] == [90, 10]
    assert {split["ResponseHeaders"]["Set"]["x-nomadserve-split"] for split in splits} == {"v1=90 v2=10"}


def test_weights_are_read_back_from_the_splitter() -> None:
    assert entries.weights_of(entries.splitter("digits", V1_V2, {})) == V1_V2


def test_a_splitter_of_somebody_else_is_not_read_as_ours() -> None:
    foreign = {"Name": "digits", "Splits": [{"Weight": 100, "Service": "legacy"}]}
    with pytest.raises(entries.UnreadableSplitter, match="sends traffic to `legacy`"):
        entries.weights_of(foreign)


def test_routes_of_other_services_stay_as_they_are() -> None:
    other = {"Match": {"HTTP": {"PathPrefix": "/by-hand"}}, "Destination": {"Service": "x"}}
    router = entries.with_routes({"Routes": [other]}, "digits", entries.routes("digits", {"v1": 300}))
    router = entries.with_routes(router, "cats", entries.routes("cats", {"v1": 300}))
    assert entries.routed_services(router) == ["digits", "cats"]
    without = entries.with_routes(router, "digits", [])
    assert without["Routes"][0] == other
    assert entries.routed_services(without) == ["cats"]


def test_a_pinned_version_is_routed_before_the_weights() -> None:
    targets = [route["Destination"]["Service"] for route in entries.routes("digits", {"v1": 300, "v2": 300})]
    assert targets == ["digits", "digits-v1", "digits-v2", "digits"]


def test_metrics_are_led_to_a_path_that_nothing_answers() -> None:
    first = entries.routes("digits", {"v1": 300})[0]
    assert first["Match"]["HTTP"]["PathExact"] == "/metrics"
    assert first["Destination"]["PrefixRewrite"] == "/not-routed"


def test_each_version_keeps_its_own_timeout_and_the_service_gets_the_longest() -> None:
    router = entries.with_routes(None, "digits", entries.routes("digits", {"v1": 300, "v2": 10}))
    assert entries.timeouts_of(router, "digits") == {"v1": 300, "v2": 10}
    assert router["Routes"][-1]["Destination"]["RequestTimeout"] == "5m0s"


def test_every_entry_says_whose_it_is() -> None:
    found = entries.traffic_entries("digits", V1_V2, {})
    assert {entries.owner(entry) for entry in found} == {"digits"}
    assert entries.owner({"Kind": "service-defaults", "Name": "digits"}) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(300, "5m0s"), (1, "1s"), (1.5, "1.5s"), (0.25, "250ms"), (90, "1m30s"), (3600, "1h0m0s"), (3661.5, "1h1m1.5s")],
)
def test_durations_are_written_as_consul_writes_them_back(seconds: float, text: str) -> None:
    assert entries.go_duration(seconds) == text
    assert entries.seconds_of(text) == seconds


def test_what_consul_adds_by_itself_is_no_difference() -> None:
    wanted = entries.service_defaults("digits")
    existing = wanted | {"TransparentProxy": {}, "Hash": 1, "CreateIndex": 2, "ModifyIndex": 3}
    assert entries.is_same(wanted, existing)


@pytest.mark.parametrize(
    "existing",
    [
        {"Kind": "service-defaults", "Name": "digits", "Protocol": "tcp"},
        {"Kind": "service-defaults", "Name": "digits", "Protocol": "http", "MaxInboundConnections": 5},
        {"Kind": "service-defaults", "Name": "digits"},
    ],
)
def test_what_somebody_else_changed_is_a_difference(existing: entries.Entry) -> None:
    assert not entries.is_same(entries.service_defaults("digits"), existing)


def test_a_shorter_list_is_a_difference() -> None:
    assert not entries.is_same({"Routes": [1, 2]}, {"Routes": [1]})
    assert not entries.is_same({"Routes": [1]}, {"Routes": [1, 2]})


def test_history_keeps_the_newest_changes_in_order() -> None:
    meta: dict[str, str] = {}
    for number in range(entries.CHANGES_MAX + 5):
        meta = entries.with_change(meta, f"line {number}")
    texts = [text for _, text in sorted(meta.items())]
    assert texts[-1] == f"line {entries.CHANGES_MAX + 4}"
    assert len(texts) == entries.CHANGES_MAX
    assert texts == sorted(texts, key=lambda text: int(text.split()[1]))


def test_what_others_keep_in_meta_stays_and_is_no_history() -> None:
    meta = entries.with_change({"owner": "ann"}, "line")
    assert meta == {"owner": "ann", "change-000001": "line"}
    assert entries.changes({"Meta": meta}) == ["line"]


def test_a_long_line_of_history_is_cut_to_what_consul_takes() -> None:
    assert len(next(iter(entries.with_change({}, "x" * 600).values()))) == entries.META_VALUE_LENGTH_MAX


WAKING = entries.Waking(startup_s=6.2, notice_s=4, hold_s=30)


def test_only_a_version_that_may_sleep_has_the_waiting_room_as_its_last_resort() -> None:
    found = entries.traffic_entries("digits", V1_V2, {}, {"v2": WAKING})
    v1, v2 = (entry for entry in found if entry["Kind"] == "service-resolver")
    assert v1["Failover"] == {"*": {"Targets": [{"Service": "digits-v2"}]}}
    assert v2["Failover"] == {"*": {"Targets": [{"Service": "digits-v1"}, {"Service": "nomadserve-waiting"}]}}
    assert entries.waking_of(v1) is None
    assert entries.waking_of(v2) == WAKING


def test_the_waiting_room_is_told_who_is_awaited_and_how_long_that_takes() -> None:
    header = {"RequestHeaders": {"Set": {"x-nomadserve-wakes": "digits-v2 11 30"}}}
    v1, v2 = entries.splitter("digits", V1_V2, {}, {"v2": WAKING})["Splits"]
    assert "RequestHeaders" not in v1
    assert v2 == v2 | header
    pins = [route["Destination"] for route in entries.routes("digits", {"v1": 300, "v2": 10}, {"v2": WAKING})[1:3]]
    assert [pin.get("RequestHeaders") for pin in pins] == [None, header["RequestHeaders"]]


def test_a_version_that_no_longer_sleeps_is_a_difference() -> None:
    before, after = (entries.splitter("digits", V1_V2, {}, wakings) for wakings in ({"v2": WAKING}, {}))
    assert not entries.is_same(after, before)
