"""Nomad's plan diff as lines for people, without its noise. Pure.

Nomad reports as edited what is not: every job with a `scaling` block, for one; and it hides what is: a changed device
constraint shows as a bare `Device: Edited` (tried on 1.11). So an object counts only by its changed leaves, and devices
are compared here.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

Diff = Mapping[str, Any]

LONG_TEXT = 120  # a line of a usual terminal
SHOWN = 60  # of a long text that is new as a whole
POLICY_CHECK = re.compile(r"check\[\d+\]((?:\[[\w-]+\])+)")
WORDS = re.compile(r"[\w.]+|\W")

MARKS = {"Added": "+", "Deleted": "-", "Edited": "~"}


def diff_lines(diff: Diff, *, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """What registering `after` changes in the job; empty where nothing does.

    diff: `Diff` of Nomad's plan.  before, after: the job as Nomad's JSON has it; None where it is new.
    """
    if before is None:
        return new_job_lines(after)
    lines = list(object_lines(diff, depth=0))
    for group in diff.get("TaskGroups") or []:
        tasks = [line for task in group.get("Tasks") or [] for line in named_lines("task ", task, depth=1)]
        own = [*object_lines(group, depth=1), *tasks]
        if own:
            lines += [f"{MARKS.get(group['Type'], '~')} group {group['Name']}", *own]
    return lines + device_lines(before, after)


def changes_tasks(diff: Diff) -> bool:
    """Whether the plan changes what a replica is, rather than how many there are or how they are scaled."""
    tasks = (task for group in diff.get("TaskGroups") or [] for task in group.get("Tasks") or [])
    return any(named_lines("task ", task, depth=0) for task in tasks)


def new_job_lines(job: Mapping[str, Any]) -> list[str]:
    """A new job in a few lines: what it will take of a node."""
    lines = [f"+ job {job['ID']}"]
    for group in job["TaskGroups"]:
        count = group["Count"]
        lines.append(f"    {count} replica{'' if count == 1 else 's'}{where_text(group)}")
        for task in group["Tasks"]:
            resources = task["Resources"]
            cpu = f"{resources['Cores']} cores" if resources.get("Cores") else f"{resources['CPU']} MHz"
            lines.append(f"    {task['Driver']}: {cpu}, {resources['MemoryMB']} MiB memory")
            lines += [f"    {device_text(device)}" for device in resources.get("Devices") or []]
    return lines


def where_text(group: Mapping[str, Any]) -> str:
    """On which nodes a group's replicas run: `, only where meta.nomadserve_spot = true`; empty where on any."""
    texts = [f"only where {condition_text(constraint)}" for constraint in group.get("Constraints") or []]
    for affinity in group.get("Affinities") or []:
        texts.append(f"{'rather' if affinity['Weight'] > 0 else 'rather not'} where {condition_text(affinity)}")
    return "".join(f", {text}" for text in texts)


def named_lines(what: str, diff: Diff, *, depth: int) -> list[str]:
    """An object's lines below a line with its name; empty where nothing in it changes."""
    lines = list(object_lines(diff, depth=depth + 1))
    return [f"{'    ' * depth}{MARKS[diff['Type']]} {what}{diff['Name']}", *lines] if lines else []


def object_lines(diff: Diff, *, depth: int) -> Iterator[str]:
    """The changed leaves of an object, indented below the names of the objects they are in."""
    indent = "    " * depth
    for field in diff.get("Fields") or []:
        if field["Type"] not in MARKS or field["Old"] == field["New"]:
            continue
        if field["Name"] == "Env[NOMADSERVE_MODELS]" and field["Type"] == "Edited":
            yield from (f"{indent}~ {line}" for line in model_lines(field["Old"], field["New"]))
        else:
            yield f"{indent}{MARKS[field['Type']]} {field_name(field['Name'])}: {field_text(field)}"
    for inner in diff.get("Objects") or []:
        yield from named_lines("", inner, depth=depth)


def model_lines(old: str, new: str) -> list[str]:
    """What changes in the models that the runtime is told to load (JSON, one object a model): each key that does."""
    before, after = ({model["name"]: model for model in json.loads(text)} for text in (old, new))
    return [
        f"model {name} {key}: {before.get(name, {}).get(key, 'none')} → {after.get(name, {}).get(key, 'none')}"
        for name in dict.fromkeys([*before, *after])
        for key in dict.fromkeys([*before.get(name, {}), *after.get(name, {})])
        if before.get(name, {}).get(key) != after.get(name, {}).get(key)
    ]


def field_name(name: str) -> str:
    """`check[1][office][0][schedule][0][end]`, as Nomad flattens a scaling policy → `check office schedule end`."""
    check = POLICY_CHECK.fullmatch(name)
    if check is None:
        return name
    return " ".join(["check", *(key for key in re.findall(r"[\w-]+", check[1]) if not key.isdecimal())])


def field_text(field: Diff) -> str:
    """`old → new`, or the one side that there is: of a long query its beginning."""
    if field["Type"] != "Edited":
        text = str(field["New"] if field["Type"] == "Added" else field["Old"])
        is_long = len(text) > LONG_TEXT
        return f"{text[:SHOWN]}… (`nomadserve render` prints all of it)" if is_long else text
    old, new = str(field["Old"]), str(field["New"])
    return f"{old} → {new}" if max(len(old), len(new)) <= LONG_TEXT else word_changes(old, new)


def word_changes(old: str, new: str) -> str:
    """Two long texts, such as queries of a scaling policy, by the words in which they differ."""
    before, after = WORDS.findall(old), WORDS.findall(new)
    changes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return "… " + " … ".join(
        f"{''.join(before[i1:i2]) or 'nothing'} → {''.join(after[j1:j2]) or 'nothing'}"
        for kind, i1, i2, j1, j2 in changes
        if kind != "equal"
    )


def device_lines(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Changed device requests, which Nomad's own diff does not spell out."""
    old, new = devices(before), devices(after)
    if old == new:
        return []
    return [*(f"- {text}" for text in old if text not in new), *(f"+ {text}" for text in new if text not in old)]


def devices(job: Mapping[str, Any]) -> list[str]:
    """Each device request of the job as text."""
    tasks = (task for group in job["TaskGroups"] for task in group["Tasks"])
    return [device_text(device) for task in tasks for device in task["Resources"].get("Devices") or []]


def device_text(device: Mapping[str, Any]) -> str:
    """`2× nvidia/gpu (memory >= 40 GiB; prefers model regexp H100)`."""
    parts = [f"{condition_text(constraint)}" for constraint in device.get("Constraints") or []]
    parts += [
        f"prefers {condition_text(affinity)} by {affinity['Weight']}" for affinity in device.get("Affinities") or []
    ]
    return f"{device['Count']}× {device['Name']}" + (f" ({'; '.join(parts)})" if parts else "")


def condition_text(condition: Mapping[str, Any]) -> str:
    """A constraint or affinity on a device: `memory >= 40 GiB`."""
    return f"{attribute_name(condition['LTarget'])} {condition['Operand']} {condition['RTarget']}"


def attribute_name(target: str) -> str:
    """`${device.attr.memory}` → `memory`, `${device.model}` → `model`."""
    return target.strip("${}").removeprefix("device.").removeprefix("attr.")


def update_lines(plan: Mapping[str, Any]) -> list[str]:
    """How many replicas start, change in place, roll, stop or stay, by Nomad's own annotations."""
    words = {
        "Place": "start",
        "InPlaceUpdate": "change in place",
        "DestructiveUpdate": "are replaced, a few at a time",
        "Canary": "start beside the running ones and take over once healthy",
        "Migrate": "move to another node",
        "Stop": "stop",
        "Preemptions": "of other jobs are preempted",
        "Ignore": "stay as they are",
    }
    updates = ((plan.get("Annotations") or {}).get("DesiredTGUpdates") or {}).values()
    totals = {key: sum(int(update.get(key, 0)) for update in updates) for key in words}
    if totals["Canary"] and totals["Ignore"]:
        return [f"all {totals['Ignore']} replicas are replaced: {totals['Canary']} new first, then the others"]
    return [f"replicas that {word}: {totals[key]}" for key, word in words.items() if totals[key]]
