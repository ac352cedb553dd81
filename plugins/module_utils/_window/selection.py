# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which workloads are meant: by GPU, label, namespace or name instead of lists of ids, for captures and restores.

Pure: what is there comes from ``containerd_workload_info``, what is wanted from the inventory.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .identity import Identity

#: What a workload's checkpoint is called where the selection does not say.
CHECKPOINT = "gpuops.local/checkpoint/{name}:latest"
RESTORE_AS = "{name}"

#: What a capture takes of a workload, by the name that a selection has for it. Three mean another thing for a restore.
CAPTURE_KEYS: Mapping[str, str] = {
    "leave": "leave",
    "store": "store",
    "gpu": "gpu",
    "cuda_forks": "cuda_forks",
    "capture_accept": "accept",
    "targets": "targets",
    "capture_criu": "criu",
    "capture_memory_volumes": "memory_volumes",
    "before_capture": "before_capture",
    "after_capture": "after_capture",
    "force": "force",
    "archive": "archive",
    "compression": "compression",
    "base": "base",
    "registry": "registry",
}
RESTORE_KEYS = frozenset(
    {
        "added_mounts",
        "after_restore",
        "allow_annotations",
        "allow_hooks",
        "cgroups_path",
        "checkpoint_archive",
        "criu",
        "digest",
        "env",
        "gpu",
        "gpu_map",
        "image",
        "image_archive",
        "limits",
        "memory_volumes",
        "metadata",
        "mounts",
        "network",
        "network_command",
        "probe",
        "route",
        "snapshot_id",
        "snapshotter",
        "stderr",
        "stdout",
        "verify_key",
        "vram",
    }
)
#: Keys of ``migrate_workloads`` that no restore has.
_MIGRATE_KEYS = frozenset(
    {"capture_accept", "capture_criu", "capture_memory_volumes", "before_capture", "after_capture"}
)
#: Options whose texts may have placeholders.
_FILLED = frozenset(
    {"archive", "checkpoint_archive", "image_archive", "metadata", "mounts", "registry", "stderr", "stdout"}
)
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
_MATCH_KEYS = ("gpu", "labels", "names", "namespaces")
_KEYS = (*_MATCH_KEYS, "allow_none", "checkpoint", "defaults", "exclude", "overrides", "restore_as")
_PLACEHOLDERS = tuple(Identity("x").placeholders("x"))


class SelectionError(Exception):
    """What is wrong with a selection; each a sentence, with its remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = list(problems)


class NothingSelectedError(SelectionError):
    """The selection is sound, and takes nothing."""


@dataclass(frozen=True)
class Workload:
    """A container that may be meant."""

    identity: Identity
    #: Whether it has GPU memory, or had when it was captured.
    gpu: bool = False
    #: Its task may run or stand still; otherwise only its record or its checkpoint is there.
    live: bool = False
    #: Names of its checkpoints on the node.
    checkpoints: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Match:
    """A rule; whatever it has must fit."""

    gpu: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def takes(self, workload: Workload) -> bool:
        """Whether the workload is meant. Names, namespaces and values of labels are patterns (``*``, ``?``)."""
        who = workload.identity
        if self.gpu is not None and workload.gpu != self.gpu:
            return False
        if any(key not in who.labels or not _fits(who.labels[key], [value]) for key, value in self.labels.items()):
            return False
        if self.namespaces and not _fits(who.namespace, self.namespaces):
            return False
        called = [text for text in (who.id, who.name, who.pod, who.container) if text]
        return not self.names or any(_fits(text, self.names) for text in called)


@dataclass(frozen=True)
class Override:
    """Options for those that a rule takes."""

    match: Match
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Selection:
    """The workloads that are meant, and what holds for them."""

    match: Match
    exclude: tuple[Match, ...] = ()
    checkpoint: str = CHECKPOINT
    restore_as: str = RESTORE_AS
    #: A node on which there is none is no failure.
    allow_none: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()

    def meant(self, workload: Workload) -> bool:
        """Whether it is one of them."""
        if workload.identity.sandbox or not self.match.takes(workload):
            return False
        return not any(rule.takes(workload) for rule in self.exclude)

    def options(self, workload: Workload, host: str) -> dict[str, Any]:
        """The defaults, and what overrides them for this one; the last wins."""
        found = dict(self.defaults)
        for override in self.overrides:
            if override.match.takes(workload):
                found.update(override.options)
        known = workload.identity.placeholders(host)
        return {key: _filled(value, known) if key in _FILLED else value for key, value in found.items()}


@dataclass(frozen=True)
class Chosen:
    """One workload that is meant."""

    workload: Workload
    #: Reference of its checkpoint.
    checkpoint: str
    #: What it is called when it is restored.
    name: str
    options: Mapping[str, Any]

    def capture(self) -> dict[str, Any]:
        """As ``checkpoint_node_workloads`` has it."""
        given = {CAPTURE_KEYS[key]: value for key, value in self.options.items() if key in CAPTURE_KEYS}
        return {"name": self.workload.identity.id, "checkpoint": self.checkpoint, **given}

    def restore(self) -> dict[str, Any]:
        """As ``restore_node_workloads`` has it."""
        given = {key: value for key, value in self.options.items() if key in RESTORE_KEYS}
        return {"name": self.name, "checkpoint": self.checkpoint, **given}

    def migration(self) -> dict[str, Any]:
        """As ``migrate_workloads`` has it."""
        given = {key: value for key, value in self.options.items() if key in RESTORE_KEYS | _MIGRATE_KEYS}
        return {**given, "name": self.name, "source_name": self.workload.identity.id, "checkpoint": self.checkpoint}


def parse(value: Any) -> Selection:
    """A selection as the inventory has it. Raises SelectionError with everything that is wrong."""
    problems: list[str] = []
    if not isinstance(value, Mapping) or not value:
        raise SelectionError(
            [
                f"workloads is {'empty' if not value else 'no dictionary'}, so it selects nothing. Say by what: gpu, "
                "labels, namespaces or names; names: ['*'] takes every container."
            ]
        )
    _unknown("workloads", value, _KEYS, problems)
    if not any(key in value for key in _MATCH_KEYS) and not problems:
        problems.append(
            "workloads selects by nothing. Say by what: gpu, labels, namespaces or names; names: ['*'] takes every "
            "container."
        )
    overrides = []
    for index, entry in enumerate(_list("workloads.overrides", value.get("overrides", []), problems)):
        where = f"workloads.overrides[{index}]"
        if not isinstance(entry, Mapping) or set(entry) != {"match", "set"}:
            problems.append(f"{where} has to have match (which workloads) and set (their options), and nothing else.")
            continue
        overrides.append(
            Override(
                _match(f"{where}.match", entry["match"], problems), _options(f"{where}.set", entry["set"], problems)
            )
        )
    found = Selection(
        match=_match("workloads", {key: value[key] for key in _MATCH_KEYS if key in value}, problems, needed=False),
        exclude=tuple(
            _match(f"workloads.exclude[{index}]", {"names": [entry]} if isinstance(entry, str) else entry, problems)
            for index, entry in enumerate(_list("workloads.exclude", value.get("exclude", []), problems))
        ),
        checkpoint=_template("checkpoint", value.get("checkpoint", CHECKPOINT), problems),
        restore_as=_template("restore_as", value.get("restore_as", RESTORE_AS), problems),
        allow_none=_bool("workloads.allow_none", value.get("allow_none", False), problems),
        defaults=_options("workloads.defaults", value.get("defaults", {}), problems),
        overrides=tuple(overrides),
    )
    if problems:
        raise SelectionError(problems)
    return found


def captures(selection: Selection, found: Sequence[Workload], host: str) -> list[Chosen]:
    """What is to be captured: what lives, and what has ended after its checkpoint was taken. Raises SelectionError."""

    def wanted(workload: Workload, checkpoint: str) -> bool:
        return workload.live or checkpoint in workload.checkpoints

    return _choose(selection, found, host, wanted, "container with a task")


def restores(selection: Selection, found: Sequence[Workload], host: str) -> list[Chosen]:
    """What is to be restored: that whose checkpoint is on the node. Raises SelectionError."""
    return _choose(
        selection, found, host, lambda workload, checkpoint: checkpoint in workload.checkpoints, "checkpoint"
    )


def _choose(
    selection: Selection,
    found: Sequence[Workload],
    host: str,
    wanted: Callable[[Workload, str], bool],
    what: str,
) -> list[Chosen]:
    chosen: dict[str, Chosen] = {}
    problems: list[str] = []
    others = 0
    for workload in sorted(found, key=lambda one: (not one.live, one.identity.name, one.identity.id)):
        if not selection.meant(workload):
            continue
        known = workload.identity.placeholders(host)
        checkpoint = _reference(str(_filled(selection.checkpoint, known)))
        if not wanted(workload, checkpoint):
            others += 1
            continue
        one = Chosen(workload, checkpoint, str(_filled(selection.restore_as, known)), selection.options(workload, host))
        # What was restored from it has the name of the original, which has ended.
        same = chosen.setdefault(checkpoint, one)
        if same is not one and workload.live == same.workload.live:
            problems.append(
                f"{same.workload.identity.id} and {workload.identity.id} on {host} would both have the checkpoint "
                f"{checkpoint}. Tell them apart in workloads.checkpoint, such as with {{id}}, or exclude one."
            )
    names = [one.name for one in chosen.values()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(
            f"{names.count(name)} workloads on {host} would come back as {name}. Tell them apart in "
            "workloads.restore_as, such as with {id}."
        )
    if not chosen and not problems and not selection.allow_none:
        raise NothingSelectedError([_none(selection, found, host, what, others)])
    if problems:
        raise SelectionError(problems)
    return list(chosen.values())


def _none(selection: Selection, found: Sequence[Workload], host: str, what: str, others: int) -> str:
    there = sorted({one.identity.name for one in found if not one.identity.sandbox})
    shown = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
    seen = f"there are {shown}" if there else "there is no container at all"
    if others:
        seen = f"{others} container(s) fit, none of which has the checkpoint {selection.checkpoint}"
        seen = seen if what == "checkpoint" else f"{others} container(s) fit, none of which runs"
    return (
        f"The selection workloads takes no {what} on {host}: {seen}. Correct it, or say allow_none: true where a node "
        "may have none."
    )


def _match(where: str, value: Any, problems: list[str], needed: bool = True) -> Match:
    if not isinstance(value, Mapping) or (needed and not value):
        problems.append(f"{where} has to say by what: gpu, labels, namespaces or names.")
        return Match()
    if needed:
        _unknown(where, value, _MATCH_KEYS, problems)
    labels = value.get("labels", {})
    if not isinstance(labels, Mapping) or ("labels" in value and not labels):
        problems.append(f"{where}.labels has to be a dictionary of labels and their values, of which there is none.")
        labels = {}
    texts = {}
    for key in ("namespaces", "names"):
        given = _list(f"{where}.{key}", value.get(key, []), problems)
        if key in value and not given:
            problems.append(f"{where}.{key} is empty, so it takes nothing. Give at least one, or leave it out.")
        texts[key] = tuple(str(text) for text in given)
    gpu = _bool(f"{where}.gpu", value["gpu"], problems) if "gpu" in value else None
    return Match(gpu, {str(key): str(text) for key, text in labels.items()}, texts["namespaces"], texts["names"])


def _options(where: str, value: Any, problems: list[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        problems.append(f"{where} has to be a dictionary of options of workloads.")
        return {}
    _unknown(where, value, sorted(RESTORE_KEYS | CAPTURE_KEYS.keys()), problems)
    return dict(value)


def _template(key: str, value: Any, problems: list[str]) -> str:
    unknown = [name for name in _PLACEHOLDER.findall(str(value)) if name not in _PLACEHOLDERS]
    if not isinstance(value, str) or not value:
        problems.append(f"workloads.{key} has to be a text.")
    elif unknown:
        problems.append(
            f"workloads.{key} names {{{unknown[0]}}}, of which nothing is known. "
            f"Known are {', '.join('{' + name + '}' for name in _PLACEHOLDERS)}."
        )
    return str(value)


def _list(where: str, value: Any, problems: list[str]) -> list[Any]:
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return list(value)
    problems.append(f"{where} has to be a list.")
    return []


def _bool(where: str, value: Any, problems: list[str]) -> bool:
    if not isinstance(value, bool):
        problems.append(f"{where} has to be true or false.")
    return bool(value)


def _unknown(where: str, value: Mapping[str, Any], known: Collection[str], problems: list[str]) -> None:
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), list(known), 1)
            problems.append(
                f"{where} has the unknown key {key}. "
                + (f"Is {near[0]} meant?" if near else f"Known are {', '.join(sorted(known))}.")
            )


def _fits(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: known.get(found.group(1), found.group(0)), value)
    if isinstance(value, Mapping):
        return {_filled(key, known): _filled(part, known) for key, part in value.items()}
    return value


def _reference(text: str) -> str:
    """The path of an image has no capitals; its tag may."""
    path, colon, tag = text.rpartition(":")
    return text.lower() if not colon or "/" in tag else f"{path.lower()}:{tag}"
