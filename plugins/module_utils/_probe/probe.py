# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proof that a container works: a command in it, a file that changes, or an HTTP address.

A process that is alive may still be stuck; only what it does shows that it goes on.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from .._containerd import containers, tasks
from .._containerd.client import Client
from .._core import state_dir
from .._core.errors import RETRYABLE, TERMINAL, UNKNOWN, InputError, RestoreError
from .._host import rooted_path
from . import command as probe_command

COMMAND, FILE, HTTP = "command", "file", "http"
_INTERVAL = 0.1
_COMMAND_SECONDS = 30.0
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ProbeParams:
    """The proof that is wanted; of ``command``, ``path`` and ``url`` exactly one is given. ``seconds``: its limit."""

    container_id: str
    command: Sequence[str] = ()
    exit_status: int = 0
    return_output: bool = False
    path: str = ""
    url: str = ""
    statuses: Sequence[int] = (200,)
    in_container: bool = True
    validate_certs: bool = True
    seconds: float = 10.0
    staging_dir: str = state_dir.STATE_ROOT

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ProbeParams:
        """As a module's options have it; what is None has its default. Raises InputError ``probe_invalid``."""
        container = options["container_id"]
        kinds = [kind for kind in (COMMAND, FILE, HTTP) if options.get(kind) is not None]
        if len(kinds) != 1:
            raise InputError(
                "probe_invalid",
                f"The probe of {container} has {' and '.join(kinds) or 'none of command, file and http'}.",
                "Give exactly one of command, file and http.",
            )
        given: dict[str, Any]
        if kinds == [COMMAND]:
            seconds = options.get("command_seconds")
            given = {
                "command": tuple(options[COMMAND]) or ("",),
                "exit_status": options.get("exit_status"),
                "return_output": options.get("return_output"),
                "seconds": _COMMAND_SECONDS if seconds is None else seconds,
            }
        elif kinds == [FILE]:
            given = {name: options[FILE].get(name) for name in ("path", "seconds")}
        else:
            http = options[HTTP]
            given = {
                "url": http.get("url"),
                "statuses": tuple(http["status"]) if http.get("status") is not None else None,
                "seconds": http.get("seconds"),
                "in_container": http["network"] == "container" if http.get("network") else None,
                "validate_certs": http.get("validate_certs"),
            }
        return cls(
            container_id=options["container_id"],
            staging_dir=options["staging_dir"],
            **{name: value for name, value in given.items() if value is not None},
        )

    @property
    def kind(self) -> str:
        """Which of the three."""
        return COMMAND if self.command else FILE if self.path else HTTP


@dataclass
class ProbeResult:
    """``ok`` None: not tried, in check mode. ``detail``: one sentence. ``output`` only where it was asked for."""

    kind: str
    ok: bool | None
    detail: str
    seconds: float = 0.0
    output: str | None = None

    def result(self) -> dict[str, Any]:
        """As the module returns it."""
        found: dict[str, Any] = {"kind": self.kind, "ok": self.ok, "detail": self.detail, "seconds": self.seconds}
        if self.output is not None:
            found["output"] = self.output
        return found


def probe(client: Client, params: ProbeParams, check: bool) -> ProbeResult:
    """Carry out the proof.

    Raises InputError ``probe_invalid``, RestoreError ``probe_failed``: retryable where more time may help, unknown
    where the command says otherwise, terminal where it cannot be carried out at all.
    """
    check_params(params)
    container = containers.get(client, params.container_id)
    task = tasks.get(client, params.container_id) if container else None
    if container is None or task is None or task.status != "RUNNING" or task.pid <= 0:
        state = f"its task is {task.status}" if task else "it has no task"
        if check:
            return ProbeResult(params.kind, None, f"Not tried: {state if container else 'there is no such container'}.")
        raise _failed(
            params,
            f"The container {params.container_id} cannot be probed: {state if container else 'there is none'}.",
            "Start its task first (containerd_task).",
            TERMINAL,
        )
    begun = time.monotonic()
    if params.kind == COMMAND:
        if check:
            return ProbeResult(COMMAND, None, "Not tried: what a command changes is not known.")
        result = _command(client, params, container)
    elif params.kind == FILE:
        result = watch_file(params, f"/proc/{task.pid}/root")
    else:
        result = watch_url(params, f"/proc/{task.pid}/ns/net" if params.in_container else "")
    result.seconds = round(time.monotonic() - begun, 3)
    return result


def _command(client: Client, params: ProbeParams, container: containers.Container) -> ProbeResult:
    done = probe_command.run(
        client, params.container_id, container.spec, params.command, params.seconds, params.staging_dir
    )
    details: dict[str, Any] = {"exit_status": done.exit_status}
    if params.return_output:
        details["output"] = done.output
    name = params.command[0]
    where = f"in the container {params.container_id}"
    if done.problem:
        raise _failed(
            params,
            f"The command {name} cannot be run {where}: {done.problem}.",
            "Give a command that the container's image has, with its full path.",
            TERMINAL,
            details,
        )
    if done.exit_status is None:
        raise _failed(
            params,
            f"The command {name} {where} had not ended after {params.seconds:g} s and was killed.",
            "Give it more time with command_seconds, or look at what it waits for.",
            RETRYABLE,
            details,
        )
    if done.exit_status != params.exit_status:
        raise _failed(
            params,
            f"The command {name} {where} ended with exit status {done.exit_status}, not {params.exit_status}.",
            "Run it by hand (ctr tasks exec) to see what it says, or set return_output if that holds no secrets.",
            UNKNOWN,
            details,
        )
    detail = f"The command {name} ended with exit status {done.exit_status}."
    return ProbeResult(COMMAND, True, detail, output=done.output if params.return_output else None)


def watch_file(
    params: ProbeParams,
    root: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ProbeResult:
    """The file below ``root`` has to come into being, or to change in size or content, within the time."""
    give_up = clock() + params.seconds
    first: tuple[int, str] | None = None
    problem, looked = "", False
    while True:
        now: tuple[int, str] | None = None
        try:
            now = fingerprint(root, params.path)
        except FileNotFoundError:
            problem = ""  # it may still come
        except OSError as error:
            problem = error.strerror or str(error)
            break
        if looked and now is not None and now != first:
            return ProbeResult(FILE, True, _change(params.path, first, now))
        if not looked:
            first, looked = now, True
        if clock() >= give_up:
            break
        sleep(_INTERVAL)
    where = f"The file {params.path} of the container {params.container_id}"
    if problem:
        raise _failed(
            params,
            f"{where} cannot be watched: {problem}.",
            "Give the absolute path of a regular file in the container.",
            TERMINAL,
        )
    raise _failed(
        params,
        f"{where} did not {'change' if first else 'come into being'} within {params.seconds:g} s.",
        "Look at what the process does, give it more time, or correct the path.",
        RETRYABLE,
    )


def _change(path: str, first: tuple[int, str] | None, now: tuple[int, str]) -> str:
    if first is None:
        return f"The file {path} came into being with {now[0]} bytes."
    if now[0] != first[0]:
        return f"The file {path} went from {first[0]} to {now[0]} bytes."
    return f"The content of the file {path} changed."


def fingerprint(root: str, path: str) -> tuple[int, str]:
    """Size in bytes, and a digest of the last MiB. Raises OSError."""
    descriptor = rooted_path.open_regular(root, path)
    with open(descriptor, "rb") as stream:
        size = os.fstat(descriptor).st_size
        stream.seek(max(0, size - _READ_BYTES))
        return size, hashlib.sha256(stream.read(_READ_BYTES)).hexdigest()


def watch_url(
    params: ProbeParams,
    namespace: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ProbeResult:
    """The address has to answer with one of the statuses within the time."""
    # An HTTP client, which takes longer to load than any other probe takes.
    from . import http

    give_up = clock() + params.seconds
    while True:
        left = max(0.5, give_up - clock())
        answer = http.request(params.url, namespace, left, params.validate_certs)
        if answer.status in params.statuses:
            return ProbeResult(HTTP, True, f"{params.url} answered with status {answer.status}.")
        if clock() + _INTERVAL >= give_up:
            break
        sleep(_INTERVAL)
    said = f"answered with status {answer.status}" if answer.status else f"did not answer ({answer.problem})"
    wanted = ", ".join(str(status) for status in params.statuses)
    raise _failed(
        params,
        f"{params.url} of the container {params.container_id} {said} for {params.seconds:g} s; {wanted} is expected.",
        "Look at what the process does, give it more time, or correct url, status or network.",
        RETRYABLE,
        {"status": answer.status or None},
    )


def _failed(
    params: ProbeParams, message: str, remedy: str, outcome: str, details: dict[str, Any] | None = None
) -> RestoreError:
    return RestoreError(
        "probe_failed", message, remedy, outcome=outcome, details={"kind": params.kind, **(details or {})}
    )


def _valid_url(url: str) -> bool:
    from . import http

    return http.valid(url)


def check_params(params: ProbeParams) -> None:
    """Raise InputError ``probe_invalid`` for what makes no sense."""
    why = ""
    if params.seconds <= 0:
        why = f"it would have {params.seconds:g} s"
    elif params.kind == FILE and not params.path.startswith("/"):
        why = f"{params.path!r} is not an absolute path"
    elif params.kind == COMMAND and not params.command[0]:
        why = "its command is empty"
    elif params.kind == HTTP and not _valid_url(params.url):
        why = f"{params.url!r} is not an http or https URL"
    elif params.kind == HTTP and not params.statuses:
        why = "no status would do"
    if why:
        raise InputError(
            "probe_invalid",
            f"The probe of the container {params.container_id} makes no sense: {why}.",
            "Correct the probe's options.",
        )
