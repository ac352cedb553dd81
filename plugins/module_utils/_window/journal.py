# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a maintenance window notes on a node, so that the next run goes on where one ended, whatever ended it.

<state root>/windows/<window>/<containerd namespace>/node.json        the node: how far it is
<state root>/windows/<window>/<containerd namespace>/w.<container>.json   one workload
<state root>/windows/.claims/<containerd namespace>.json                  the run that is at work on the node

Written whole and fsync'd before the run goes on. It outlives the boot, as the window does.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._core import files, state_dir, strict_json
from .._core.errors import RETRYABLE, InputError, NodeError

WINDOWS, NODE = "windows", "node.json"
#: No window's name begins with a dot.
_CLAIMS = ".claims"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
#: Bytes of a file, and entries of a history that are kept.
_LONGEST, _HISTORY = 1 << 20, 200


@dataclass(frozen=True)
class Notes:
    """What is to be taken down of a window: of the node, and of workloads, by their ``id``."""

    window: str
    node: Mapping[str, Any] = field(default_factory=dict)
    workloads: Sequence[Mapping[str, Any]] = ()


def check_name(window: str) -> str:
    """The window's name, which is part of file names and of tags. Raises InputError ``window_name_invalid``."""
    if _NAME.match(window):
        return window
    raise InputError(
        "window_name_invalid",
        f"{window!r} is no name for a window.",
        "Use up to 64 letters, digits, dots, dashes and underscores, such as 2026-12-kernel (maintenance_window).",
    )


def windows(root: str, namespace: str) -> list[str]:
    """The windows that have noted something on this node."""
    place = os.path.join(root, WINDOWS)
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(place) if os.path.isdir(os.path.join(place, name, namespace)))
    return []


def read(root: str, namespace: str, window: str) -> dict[str, Any]:
    """``node`` and ``workloads`` of a window; {} and [] where nothing is noted.

    Raises NodeError ``window_unreadable``: to begin anew could lose what a file speaks of.
    """
    place = _place(root, namespace, window)
    node: dict[str, Any] = {}
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(place)):
            if name == NODE:
                node = _read(os.path.join(place, name))
            elif name.startswith("w.") and name.endswith(".json"):
                found.append(_read(os.path.join(place, name)))
    return {"node": node, "workloads": found}


def note(root: str, namespace: str, notes: Notes, now: str, check: bool) -> bool:
    """Take down what is given; whether anything is new. What is not given stays.

    A phase or a message that is new is added to the history, with the time.
    """
    place = _place(root, namespace, notes.window)
    updates = [(f"w.{entry['id']}.json", entry) for entry in notes.workloads]
    if notes.node:
        # Last: what it says of them is true by then.
        updates.append((NODE, notes.node))
    changed = False
    for name, entry in updates:
        path = os.path.join(place, name)
        before: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            before = _read(path)
        after = {**before, **entry, "window": notes.window}
        if after == before:
            continue
        changed = True
        if not check:
            _write(root, path, _with_history(before, after, now))
    return changed


def claimed(root: str, namespace: str) -> dict[str, Any]:
    """The run that is at work on the node: ``window``, ``controller``, ``since``; {} where none has said so."""
    with contextlib.suppress(FileNotFoundError):
        return _read(_claim_path(root, namespace))
    return {}


def revision(root: str, namespace: str) -> str:
    """Another one whenever anything has been noted or claimed."""
    known = [claimed(root, namespace), *(read(root, namespace, name) for name in windows(root, namespace))]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def locked(root: str, namespace: str) -> Iterator[None]:
    """No other call claims or notes anything meanwhile."""
    directory = os.path.dirname(_claim_path(root, namespace))
    state_dir.make_private(directory, root)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Held for a few writes only.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def take(root: str, namespace: str, window: str, controller: str, seen: str, now: str) -> None:
    """The node is this run's, if nothing was noted or claimed since ``seen``, its :func:`revision`; under the lock.

    Whose claim it saw then, it knows to have ended. Raises NodeError ``window_busy``.
    """
    held = claimed(root, namespace)
    if held.get("controller") == controller and held.get("window") == window:
        return
    if revision(root, namespace) != seen:
        raise _busy(held, "has begun since this run looked at the node", "Nothing was done by this one.")
    if controller:
        # A system that does not tell which run this is cannot tell whether it has ended either.
        _write(root, _claim_path(root, namespace), {"window": window, "controller": controller, "since": now})


def require(root: str, namespace: str, window: str, controller: str) -> None:
    """The node still is this run's; under the lock. Raises NodeError ``window_busy``."""
    held = claimed(root, namespace)
    if (held.get("window"), held.get("controller")) != (window, controller):
        # It may have captured already.
        raise _busy(held, "has taken the node over from this run", "This one stops; what it did is in the journal.")


def release(root: str, namespace: str, controller: str) -> bool:
    """The node is nobody's any more, if it was this run's; under the lock."""
    if not controller or claimed(root, namespace).get("controller") != controller:
        return False
    path = _claim_path(root, namespace)
    os.unlink(path)
    files.sync_directory(os.path.dirname(path))
    return True


def who(held: Mapping[str, Any]) -> str:
    """Whoever has claimed a node, in words."""
    host, _blank, process = str(held.get("controller", "")).partition(" ")
    pid = process.split("/")[1] if process.count("/") > 1 else "unknown"
    return f"a run on the controller {host}, pid {pid}, since {held.get('since', 'an unknown time')}"


def _busy(held: Mapping[str, Any], what: str, consequence: str) -> NodeError:
    by = f"The window {held['window']} ({who(held)})" if held else "Another run, which has ended already,"
    return NodeError(
        "window_busy",
        f"{by} {what}.",
        f"{consequence} Run it again when the other one has ended.",
        outcome=RETRYABLE,
        details=dict(held),
    )


def _claim_path(root: str, namespace: str) -> str:
    return os.path.join(root, WINDOWS, _CLAIMS, f"{namespace}.json")


def _place(root: str, namespace: str, window: str) -> str:
    return os.path.join(root, WINDOWS, check_name(window), namespace)


def _with_history(before: Mapping[str, Any], after: dict[str, Any], now: str) -> dict[str, Any]:
    keys = ("attempt", "phase", "message", "digest")
    told = {key: after[key] for key in keys if after.get(key) not in (None, "")}
    if any(before.get(key) != after.get(key) for key in keys):
        after["history"] = [*before.get("history", []), {"at": now, **told}][-_HISTORY:]
    return after


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            return strict_json.parse_object(stream.read(_LONGEST + 1))
    except ValueError as error:
        raise NodeError(
            "window_unreadable",
            f"{path}, which a window has noted, cannot be read: {error}.",
            "See what it was about (its neighbours, the checkpoints on the node), then move it away.",
            details={"path": path},
        ) from error


def _write(root: str, path: str, document: Mapping[str, Any]) -> None:
    directory = os.path.dirname(path)
    state_dir.make_private(directory, root)
    partial = f"{path}.{os.getpid()}"
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=2, sort_keys=True)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
        while True:
            files.sync_directory(directory)
            if os.path.normpath(directory) == os.path.normpath(root):
                return
            directory = os.path.dirname(directory)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise
