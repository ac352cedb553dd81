# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers of checkpoints on this node: started, known again by their records, stopped.

<runtime directory>/serve/<id>.json

The record has no secret in it, and its time is that of the last use. The server removes it when it ends; the record of
one that was killed is removed by the next call for any.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from .._core import helper_process, state_dir
from .._core.errors import RETRYABLE, InputError, NodeError
from .._host import processes
from . import serve_worker

_READY_SECONDS = 30.0
_END_SECONDS = 5.0
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
#: A record that is being written, with the process that writes it.
_UNFINISHED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.json\.([0-9]{1,10})\Z")


@dataclass(frozen=True)
class Running:
    """A server as its record tells."""

    #: See :func:`processes.identity`.
    process: str
    port: int
    certificate: str
    #: Of all that it was started with.
    wish: str
    #: It offers something.
    offers: bool = True


def root() -> str:
    """Where the records lie."""
    return state_dir.runtime_dir("serve")


def find(place: str, name: str) -> Running | None:
    """The server of that id that runs. Raises InputError ``serve_id_invalid``."""
    try:
        with open(_path(place, name), encoding="utf-8") as stream:
            found = Running(**json.load(stream))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # Half a record: the machine stopped, or the disk was full.
        return None
    return found if processes.lives(found.process) else None


def start(place: str, name: str, wish: Mapping[str, Any], digest: str, offers: bool = True) -> Running:
    """Start one with that ``wish``, known by ``digest``. Raises NodeError ``serve_failed``."""
    state_dir.make_private(place, place)
    path = _path(place, name)
    child = helper_process.Child(serve_worker, {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"})
    try:
        child.send({**wish, "record": path})
        answer = child.receive(time.monotonic() + _READY_SECONDS) or {"error": "it does not begin"}
        if "error" in answer:
            raise _failed(wish, answer["error"])
        running = Running(processes.identity(answer["pid"]), answer["port"], wish["certificate"], digest, offers)
        _write(path, running)
        # Without this it goes with us.
        child.send({"go": True})
    except helper_process.ChildEndedError as error:
        raise _failed(wish, str(error)) from error
    finally:
        child.close()
    return running


def stop(place: str, name: str) -> bool:
    """Have none with that id. False where there was none."""
    found = find(place, name)
    if found is not None:
        end(found)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_path(place, name))
    return found is not None


def end(found: Running) -> None:
    """The process is gone, and with it all connections. Raises NodeError ``serve_stuck``."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if processes.lives(found.process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(found.process.split("/")[1]), number)
        give_up = time.monotonic() + _END_SECONDS
        while processes.lives(found.process):
            if time.monotonic() > give_up:
                break
            time.sleep(0.02)
        else:
            return
    raise NodeError(
        "serve_stuck",
        f"The server of the checkpoint, process {found.process.split('/')[1]}, does not end.",
        "See what it waits for (/proc/PID/stack), then run again.",
        outcome=RETRYABLE,
    )


def tidy(place: str) -> None:
    """Remove the records of servers that were killed."""
    for path in _dead(place):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def give_way(place: str, port: int) -> None:
    """End the servers on that port that offer nothing: whoever asked whether they are reached is through or gone."""
    for path, found in _alive(place):
        if found.port == port and not found.offers:
            end(found)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def leftovers(place: str, quiet: float | None, check: bool) -> list[str]:
    """Paths of the records of servers that were killed, and of those that nobody has used for ``quiet`` seconds; both
    are gone then, but for ``check``. None: whoever runs stays."""
    found = _dead(place)
    idle = [] if quiet is None else [each for each in _alive(place) if _seconds_unused(each[0]) > quiet]
    for _path_of_record, running in idle if not check else ():
        end(running)
    found += [path for path, _running in idle]
    for path in found if not check else ():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return sorted(found)


def _records(place: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(place))
    return []


def _alive(place: str) -> list[tuple[str, Running]]:
    """The servers that run, with the paths of their records."""
    names = [entry[: -len(".json")] for entry in _records(place) if entry.endswith(".json")]
    found = [(os.path.join(place, f"{name}.json"), find(place, name)) for name in names if _ID.match(name)]
    return [(path, running) for path, running in found if running is not None]


def _dead(place: str) -> list[str]:
    """Paths of the records whose server does not live, and of those that were never written whole."""
    entries = _records(place)
    living = {path for path, _running in _alive(place)}
    found = []
    for entry in entries:
        path, unfinished = os.path.join(place, entry), _UNFINISHED.match(entry)
        if unfinished is not None:
            if not os.path.exists(f"/proc/{unfinished.group(1)}"):
                found.append(path)
        elif entry.endswith(".json") and _ID.match(entry[: -len(".json")]) and path not in living:
            found.append(path)
    return found


def _seconds_unused(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        # It has just ended by itself.
        return 0.0


def _failed(wish: Mapping[str, Any], why: str) -> NodeError:
    return NodeError(
        "serve_failed",
        f"The server of the checkpoint does not start on {wish['listen']}, port {wish['port']}: {why}.",
        "Give a port that is free, and an address of this node.",
        outcome=RETRYABLE,
    )


def _path(place: str, name: str) -> str:
    if not _ID.match(name):
        raise InputError(
            "serve_id_invalid",
            f"The id {name[:80]!r} is none for a server.",
            "Give up to 64 letters, digits, _ and -, beginning with a letter or a digit.",
        )
    return os.path.join(place, f"{name}.json")


def _write(path: str, running: Running) -> None:
    new = f"{path}.{os.getpid()}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with cast("Any", os.fdopen(descriptor, "w", encoding="utf-8")) as stream:
        json.dump(asdict(running), stream)
    os.rename(new, path)
