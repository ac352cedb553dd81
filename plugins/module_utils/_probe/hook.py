# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a workload is told before and after it stands still: a command in its container, or an HTTP request.

Other than a probe it is done once: it has an effect.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .._containerd import tasks
from .._containerd.client import Client
from .._core.errors import TERMINAL, UNKNOWN, InputError, RestoreError
from . import probe as probes
from .probe import HTTP, ProbeParams, ProbeResult

BEFORE_CAPTURE, AFTER_CAPTURE, AFTER_RESTORE = "before_capture", "after_capture", "after_restore"
_SECONDS = 30.0


@dataclass(frozen=True)
class Hook:
    """One of them. ``target``: command or address, status and time, as of a probe."""

    #: BEFORE_CAPTURE, AFTER_CAPTURE or AFTER_RESTORE.
    name: str
    target: ProbeParams
    method: str = "POST"
    body: str = ""
    #: May hold secrets.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: As given, to be kept until it was done.
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any], container_id: str, staging_dir: str) -> Hook | None:
        """From an option of that name, None where it is not given. Raises InputError ``hook_invalid``."""
        given = {key: value for key, value in options.items() if value is not None}
        if not given:
            return None
        http = given.get(HTTP) or {}
        try:
            target = ProbeParams.from_options({**given, "container_id": container_id, "staging_dir": staging_dir})
            if http and http.get("seconds") is None:
                target = replace(target, seconds=_SECONDS)
            probes.check_params(target)
        except InputError as error:
            why = error.message.partition(": ")[2] or error.message
            raise InputError(
                "hook_invalid", f"{name} of {container_id} makes no sense: {why}", f"Correct {name}."
            ) from error
        return cls(
            name=name,
            target=target,
            method=http.get("method") or "POST",
            body=http.get("body") or "",
            headers={str(key): str(value) for key, value in (http.get("headers") or {}).items()},
            options=given,
        )

    def action(self) -> str:
        """One line for ``actions``."""
        what = self.target.url or self.target.command[0]
        return f"run {self.name} of {self.target.container_id} ({what})"


def run(client: Client, hook: Hook) -> ProbeResult:
    """Carry it out. Raises RestoreError ``hook_failed``."""
    begun = time.monotonic()
    try:
        done = _request(client, hook) if hook.target.kind == HTTP else probes.probe(client, hook.target, check=False)
    except RestoreError as error:
        raise RestoreError(
            "hook_failed",
            f"{hook.name} failed: {error.message}",
            error.remedy,
            outcome=error.outcome,
            details={**error.details, "hook": hook.name},
        ) from error
    done.seconds = round(time.monotonic() - begun, 3)
    return done


def _request(client: Client, hook: Hook) -> ProbeResult:
    # An HTTP client takes long to load.
    from . import http

    target = hook.target
    task = tasks.get(client, target.container_id)
    namespace = f"/proc/{task.pid}/ns/net" if task is not None and target.in_container else ""
    if target.in_container and (task is None or task.status != "RUNNING"):
        raise RestoreError(
            "probe_failed",
            f"The container {target.container_id} has no running task to ask.",
            "Start it first.",
            outcome=TERMINAL,
        )
    answer = http.request(
        *(target.url, namespace, target.seconds, target.validate_certs),
        method=hook.method,
        body=hook.body.encode(),
        headers=hook.headers,
    )
    if answer.status in target.statuses:
        return ProbeResult(HTTP, True, f"{target.url} answered {hook.method} with status {answer.status}.")
    wanted = ", ".join(str(status) for status in target.statuses)
    said = f"answered with status {answer.status}" if answer.status else f"did not answer ({answer.problem})"
    raise RestoreError(
        "probe_failed",
        f"{target.url} of the container {target.container_id} {said} to {hook.method}; {wanted} is expected within "
        f"{target.seconds:g} s.",
        "Look at what the process says of it, give it more time, or correct url, method, status or network.",
        outcome=UNKNOWN,
        details={"kind": HTTP, "status": answer.status or None},
    )
