# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restored task has otherwise than the captured one had, and nobody has asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import task_state
from .task_state import TaskState

#: As many are told one by one.
MOST = 200
#: The kind of what the container has written, which is compared before the task starts (:mod:`_checkpoint.written`).
FILES = "files"
_NONE = "none"
_ROUTES = "routes"
#: How a subject is called, by kind.
_PLACES = {task_state.MOUNTS: "the mount at {}", task_state.NETWORK: "the network device {}"}
_ITEMS = {
    "place": "the nested control group",
    "Uid": "the user",
    "Gid": "the group",
    "Groups": "the further groups",
    "NoNewPrivs": "no_new_privs",
    "Seccomp": "the seccomp mode",
    "Seccomp_filters": "the number of seccomp filters",
}


@dataclass(frozen=True)
class Expected:
    """What was asked for, or cannot be alike, and so is no difference."""

    #: Places of mounts that come from outside of the container.
    binds: frozenset[str] = frozenset()
    #: Another network was asked for.
    network: bool = False
    #: The processes ran when they were looked at, so what they have themselves may have changed since.
    running: bool = False


@dataclass(frozen=True)
class Difference:
    """One of them; what lacks on one side is None there."""

    kind: str
    #: What has it: a mount, a device, the processes.
    subject: str
    item: str
    before: str | None
    after: str | None
    subjects: Sequence[str] = field(default=())

    @property
    def message(self) -> str:
        """A sentence."""
        what = f"{self.item} of {self.subject}" if self.item else self.subject
        if self.before is None:
            return f"{_capital(what)} is new: {self.after}."
        if self.after is None:
            return f"{_capital(what)} is gone: {self.before}."
        return f"{_capital(what)} was {self.before or _NONE} and is {self.after or _NONE}."

    def result(self) -> dict[str, Any]:
        """As modules return it, and a receipt keeps it."""
        return {"kind": self.kind, "message": self.message, "before": self.before, "after": self.after}


def compare(before: TaskState, after: TaskState, expected: Expected = Expected()) -> list[Difference]:
    """Kinds that one of both lacks are not compared; what many processes have alike is one difference."""
    found: dict[tuple[str, str, str, str | None, str | None], list[str]] = {}
    for kind in task_state.KINDS:
        if kind not in before.kinds or kind not in after.kinds or _passed_over(kind, expected):
            continue
        for subject, item, was, now in _unlike(kind, before.kinds[kind], after.kinds[kind]):
            if not _is_expected(kind, subject, item, was, now, expected):
                shared = subject if kind in _PLACES or not subject else "process"
                key = (kind, shared, item, was, now)
                found.setdefault(key, []).append(subject)
    return [
        Difference(kind, _called(kind, subjects), _item(kind, item, subjects[0]), was, now, tuple(subjects))
        for (kind, _subject, item, was, now), subjects in found.items()
    ]


def not_compared(before: TaskState | None, after: TaskState | None, running: bool = False) -> str:
    """Why there is nothing to compare, or not all of it; empty where there is. ``running``: as of :class:`Expected`."""
    if before is None:
        return "The checkpoint does not record what its task had, so nobody can say whether all of it is back."
    if after is None:
        return "The restored task could not be looked at, so nobody can say whether it has all that it had."
    left = sorted({*before.omitted, *after.omitted})
    found = [f"There is too much to compare all of: {', '.join(left)}."] if left else []
    unknown = [kind for kind in _ALWAYS if not before.kinds.get(kind) and kind not in left]
    if unknown:
        found.append(f"The checkpoint does not record of its task: {', '.join(unknown)}.")
    if running:
        moving = [kind for kind in _MOVING if kind not in (*left, *unknown)]
        found.append(f"The task runs already, so these were not compared: {', '.join(moving)}.")
    return " ".join(found)


def _passed_over(kind: str, expected: Expected) -> bool:
    if kind in (task_state.NETWORK, task_state.SYSCTLS) and expected.network:
        return True
    return expected.running and kind in _MOVING


def _unlike(
    kind: str, before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, str, str | None, str | None]]:
    """Subject, item, what it was and what it is."""
    for subject in {**before, **after}:
        was, now = before.get(subject), after.get(subject)
        if kind == task_state.NETWORK and subject == _ROUTES:
            # Each is told by itself, the first and the last one, too.
            was, now = was or {}, now or {}
        if was is None or now is None:
            # A process that is gone is told once, with the processes.
            if kind in (task_state.MOUNTS, task_state.NETWORK, task_state.PROCESSES):
                yield subject, "", _summary(kind, was), _summary(kind, now)
            continue
        for item in {**was, **now}:
            told = item in was and item in now
            if was.get(item) != now.get(item) and (told or kind in _OPEN):
                yield subject, item, was.get(item), now.get(item)


#: Of a task that runs they change from one look to the next.
_MOVING = (task_state.DESCRIPTORS, task_state.PROCESSES)
#: What each task has; a network and settings of its own some have.
_ALWAYS = tuple(kind for kind in task_state.KINDS if kind not in (task_state.NETWORK, task_state.SYSCTLS))
#: Kinds in which an item may be gone or new; of others a kernel that does not tell is no difference.
_OPEN = frozenset({task_state.DESCRIPTORS, task_state.NETWORK})


def _summary(kind: str, items: Mapping[str, str] | None) -> str | None:
    if items is None:
        return None
    keys = {task_state.MOUNTS: ("type", "flags"), task_state.PROCESSES: ("command",)}.get(kind, tuple(items))
    return " ".join(items[key] for key in keys if items.get(key))


def _is_expected(kind: str, subject: str, item: str, was: str | None, now: str | None, expected: Expected) -> bool:
    if kind == task_state.MOUNTS:
        # What is mounted from elsewhere is of whatever kind that is.
        return item in ("type", "options") and _place(subject) in expected.binds
    if kind == task_state.NAMESPACES:
        return item == "net" and expected.network
    if kind == task_state.DESCRIPTORS and item in ("0", "1", "2"):
        # Where input comes from and output goes is the operator's.
        return _is_stream(was) and _is_stream(now)
    return False


def _is_stream(text: str | None) -> bool:
    return bool(text) and str(text).split(" ", maxsplit=1)[0] in ("pipe", "/dev/null", "socket")


def _place(subject: str) -> str:
    return subject.rpartition(" (")[0] if subject.endswith(")") else subject


def _called(kind: str, subjects: Collection[str]) -> str:
    first = next(iter(subjects))
    if kind == task_state.NETWORK and first == _ROUTES:
        return "the network"
    if kind in _PLACES:
        return _PLACES[kind].format(first)
    if not first:
        return "the container"
    if len(subjects) == 1:
        return f"process {first}"
    named = ", ".join(list(subjects)[:3])
    return f"processes {named}" + (f" and {len(subjects) - 3} more" if len(subjects) > 3 else "")


def _item(kind: str, item: str, subject: str) -> str:
    if kind == task_state.DESCRIPTORS and item:
        return f"descriptor {item}"
    if kind == task_state.NETWORK and subject == _ROUTES:
        return f"the route to {item}"
    if kind == task_state.NAMESPACES and item not in ("uid_map", "gid_map", "hostname"):
        return f"the {item} namespace"
    return _ITEMS.get(item, item)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def results(found: Collection[Difference]) -> list[dict[str, Any]]:
    """As modules return them, the first of very many."""
    return [one.result() for one in list(found)[:MOST]]
