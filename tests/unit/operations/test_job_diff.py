from typing import Any

from nomadserve.operations import job_diff


def job(*devices: dict[str, Any], count: int = 1) -> dict[str, Any]:
    resources = {"CPU": 200, "MemoryMB": 256, "Devices": list(devices)}
    task = {"Driver": "raw_exec", "Resources": resources}
    return {"ID": "digits-v1", "TaskGroups": [{"Count": count, "Tasks": [task]}]}


def field(name: str, old: str, new: str, kind: str = "Edited") -> dict[str, Any]:
    return {"Type": kind, "Name": name, "Old": old, "New": new}


def gpu(memory: str) -> dict[str, Any]:
    return {
        "Name": "nvidia/gpu",
        "Count": 1,
        "Constraints": [{"LTarget": "${device.attr.memory}", "Operand": ">=", "RTarget": memory}],
    }


def lines(diff: dict[str, Any], before: dict[str, Any] | None = None, after: dict[str, Any] | None = None) -> list[str]:
    return job_diff.diff_lines(diff, before=before or job(), after=after or job())


# What Nomad 1.11 answers for a job with a `scaling` block that did not change at all.
SCALING_NOISE = {
    "Type": "Edited",
    "ID": "digits-v1",
    "TaskGroups": [
        {"Type": "Edited", "Name": "serve", "Objects": [{"Type": "Edited", "Name": "Scaling"}], "Tasks": []}
    ],
}


def test_an_unchanged_scaling_block_is_no_change() -> None:
    assert lines(SCALING_NOISE) == []


def test_unchanged_siblings_are_left_out() -> None:
    fields = [field("CPU", "100", "100", "None"), field("MemoryMB", "256", "512")]
    resources = {"Type": "Edited", "Name": "Resources", "Fields": fields}
    task = {"Type": "Edited", "Name": "serve", "Objects": [resources]}
    diff = {"Type": "Edited", "TaskGroups": [{"Type": "Edited", "Name": "serve", "Tasks": [task]}]}
    assert [line.strip() for line in lines(diff)] == [
        "~ group serve",
        "~ task serve",
        "~ Resources",
        "~ MemoryMB: 256 → 512",
    ]


def test_added_and_deleted_fields_show_their_one_side() -> None:
    diff = {"Type": "Edited", "Fields": [field("Env[A]", "", "1", "Added"), field("Env[B]", "2", "", "Deleted")]}
    assert lines(diff) == ["+ Env[A]: 1", "- Env[B]: 2"]


def test_a_new_scaling_policy_reads_as_checks_with_their_keys_and_the_beginning_of_each_query() -> None:
    fields = [
        field("check[0][requests_per_second][0][query]", "", "clamp_max(" + "x" * 200, "Added"),
        field("check[1][schedule-office][0][schedule][0][end]", "", "0 20 * * 1-5", "Added"),
        field("check[1][schedule-office][0][strategy][0][fixed-value][0][value]", "", "3", "Added"),
        field("cooldown", "", "10s", "Added"),
    ]
    assert lines({"Type": "Edited", "Fields": fields}) == [
        f"+ check requests_per_second query: clamp_max({'x' * 50}… (`nomadserve render` prints all of it)",
        "+ check schedule-office schedule end: 0 20 * * 1-5",
        "+ check schedule-office strategy fixed-value value: 3",
        "+ cooldown: 10s",
    ]


def test_a_changed_device_constraint_is_spelled_out() -> None:
    # Nomad says no more than this of it.
    diff = {"Type": "Edited", "TaskGroups": []}
    assert lines(diff, job(gpu("24 GiB")), job(gpu("40 GiB"))) == [
        "- 1× nvidia/gpu (memory >= 24 GiB)",
        "+ 1× nvidia/gpu (memory >= 40 GiB)",
    ]


def test_a_new_job_is_told_in_a_few_lines() -> None:
    assert job_diff.diff_lines({}, before=None, after=job(gpu("40 GiB"), count=2)) == [
        "+ job digits-v1",
        "    2 replicas",
        "    raw_exec: 200 MHz, 256 MiB memory",
        "    1× nvidia/gpu (memory >= 40 GiB)",
    ]


def test_a_changed_model_shows_the_keys_that_change_and_not_the_whole_json() -> None:
    old = '[{"name":"digits","path":"/m.onnx","max_batch":32,"checksum":"sha256:aa"}]'
    new = '[{"name":"digits","path":"/m.onnx","max_batch":64,"checksum":"sha256:bb"},{"name":"cats","path":"/c.onnx"}]'
    diff = {"Type": "Edited", "Fields": [field("Env[NOMADSERVE_MODELS]", old, new)]}
    assert lines(diff) == [
        "~ model digits max_batch: 32 → 64",
        "~ model digits checksum: sha256:aa → sha256:bb",
        "~ model cats name: none → cats",
        "~ model cats path: none → /c.onnx",
    ]


def test_what_happens_to_replicas_is_counted() -> None:
    plan = {"Annotations": {"DesiredTGUpdates": {"serve": {"Place": 1, "DestructiveUpdate": 2, "Ignore": 0}}}}
    assert job_diff.update_lines(plan) == [
        "replicas that start: 1",
        "replicas that are replaced, a few at a time: 2",
    ]


def test_long_texts_are_told_by_the_words_that_differ() -> None:
    filler = "sum(rate(nomadserve_requests_total[30s]))" * 4
    change = field("query", f"clamp_max({filler} / 8, 5)", f"clamp_max({filler} / 12.5, 6)")
    assert job_diff.field_text(change) == "… 8 → 12.5 … 5 → 6"


def test_only_what_changes_a_replica_changes_its_tasks() -> None:
    task = {"Type": "Edited", "Name": "serve", "Fields": [field("Env[X]", "1", "2")]}
    same = task | {"Fields": [field("Env[X]", "1", "1")]}
    assert job_diff.changes_tasks({"TaskGroups": [{"Type": "Edited", "Name": "serve", "Tasks": [task]}]})
    assert not job_diff.changes_tasks({"TaskGroups": [{"Type": "Edited", "Name": "serve", "Tasks": [same]}]})
    assert not job_diff.changes_tasks({"TaskGroups": [{"Type": "Edited", "Name": "serve", "Fields": []}]})
