# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A failed CRIU restore, explained from its log."""

from __future__ import annotations

import os

from .._core.errors import UNKNOWN, DeadlineError, RestoreError, RpcError, UnavailableError


def explain(container_id: str, error: RpcError, log: str) -> RestoreError:
    """What went wrong when the task was created or started, with CRIU's own lines, a likely cause and a remedy.

    ``log`` is CRIU's restore log, which stays where it is. A daemon that went away is not a failed restore, and is
    returned as it was.
    """
    if isinstance(error, UnavailableError):
        return error
    if isinstance(error, DeadlineError):
        return RestoreError(
            "restore_timeout",
            f"The restore of {container_id} had not ended when its time was over.",
            "Raise restore_timeout, or look at the node's disk and CRIU's log.",
            outcome=UNKNOWN,
            rpc=error.rpc,
            details={"log": log},
        )
    # Hundreds of patterns, which only a failure has to wait for.
    from .._criu import log as criu_log
    from . import diagnose

    lines = criu_log.error_lines(log) if os.path.isfile(log) else []
    text = "; ".join(str(error.details.get("text", "")).split("\n"))
    found = diagnose.diagnose([*lines, text], "restore")
    evidence = [line for line in lines if not criu_log.is_harmless(line)] or [text]
    if found.matched:
        message = f"CRIU could not restore {container_id}: {found.cause} CRIU says: «{found.line}»."
    else:
        message = f"CRIU could not restore {container_id}, for a reason that is not known here: «{evidence[0]}»."
    if lines:
        remedy = f"{found.remedy} The log is {log}."
    elif found.matched:
        remedy = found.remedy
    else:
        remedy = "CRIU wrote no log, so it did not begin: check its options (criu) and containerd's own log."
    return RestoreError(
        "criu_restore_failed",
        message,
        remedy,
        outcome=found.outcome,
        rpc=error.rpc,
        details={
            "kind": found.kind,
            "cause": found.cause,
            "errors": list(found.errors) or evidence,
            "log": log if lines else "",
            "daemon": text,
        },
    )
