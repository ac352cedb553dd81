# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A failed CRIU dump, explained from its log."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from .._core import state_dir
from .._core.errors import UNKNOWN, DeadlineError, RestoreError, RpcError, UnavailableError
from .._criu import config as criu_config
from .._oci import spec_adapt

_TICK = 0.02


def log_of(spec: Mapping[str, Any], work: str, begun: float) -> str:
    """The log of a dump whose work directory is ``work``, and which began at ``begun`` (of time.time).

    A container that was restored has a configuration for CRIU of its own, which wins over what runc asks for. What lies
    there from before is the restore's log, and says nothing of the dump.
    """
    config = (spec.get("annotations") or {}).get(spec_adapt.CRIU_CONFIG_ANNOTATION, "")
    # The dump's failure is what has to be told, not that of a look at files.
    with contextlib.suppress(OSError, UnicodeDecodeError):
        configured = criu_config.log_file(state_dir.read_text(config) or "") if config else ""
        # Files have the time of the kernel's last tick.
        if configured and os.stat(configured).st_mtime >= begun - _TICK:
            return configured
    return os.path.join(work, "dump.log")


def explain(container_id: str, error: RpcError, log: str) -> RestoreError:
    """What went wrong in ``Tasks.Checkpoint``, with CRIU's own lines, a likely cause and a remedy.

    ``log`` is CRIU's dump log; it goes with the half-made dump, so its error lines are all that is kept. A daemon that
    went away is not a failed dump, and is returned as it was.
    """
    if isinstance(error, UnavailableError):
        return error
    if isinstance(error, DeadlineError):
        return RestoreError(
            "checkpoint_timeout",
            f"The dump of {container_id} had not ended when its time was over.",
            "Raise checkpoint_timeout, or put staging_dir on a faster disk.",
            outcome=UNKNOWN,
            rpc=error.rpc,
        )
    # Hundreds of patterns, which only a failure has to wait for.
    from .._criu import log as criu_log
    from . import diagnose

    lines = criu_log.error_lines(log) if os.path.isfile(log) else []
    text = "; ".join(str(error.details.get("text", "")).split("\n"))
    found = diagnose.diagnose([*lines, text], "dump")
    evidence = [line for line in lines if not criu_log.is_harmless(line)] or [text]
    if found.matched:
        message = f"CRIU could not dump {container_id}: {found.cause} CRIU says: «{found.line}»."
        remedy = found.remedy
    else:
        message = f"CRIU could not dump {container_id}, for a reason that is not known here: «{evidence[0]}»."
        remedy = "Read CRIU's error lines in failure.details.errors; the workload goes on."
    return RestoreError(
        "criu_dump_failed",
        message,
        remedy,
        outcome=found.outcome,
        rpc=error.rpc,
        details={
            "kind": found.kind,
            "cause": found.cause,
            "errors": list(found.errors) or evidence,
            "daemon": text,
        },
    )
