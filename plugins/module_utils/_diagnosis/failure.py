# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A failed CRIU dump or restore, explained from its log."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._core import state_dir
from .._core.errors import UNKNOWN, DeadlineError, RestoreError, RpcError, UnavailableError
from .._criu import config as criu_config
from .._oci import spec_adapt

if TYPE_CHECKING:
    from .diagnose import Diagnosis

_TICK = 0.02


#: CRIU has run, as runc and crun say it.
_CRIU_RAN = re.compile(r"criu failed: |CRIU \w+ failed|error executing CRIU", re.IGNORECASE)
_RUNTIME = re.compile(r"OCI runtime|runc did not terminate|unable to start container process|container init")


@dataclass(frozen=True)
class _Findings:
    """What CRIU's log and the daemon say of a failure."""

    diagnosis: Diagnosis
    #: Who refused.
    who: str
    #: Whether CRIU has begun.
    criu_ran: bool
    #: Whether CRIU wrote error lines.
    logged: bool
    #: Lines that may tell the cause; the daemon's message where CRIU wrote none.
    evidence: list[str]
    #: The daemon's message, on one line.
    daemon: str

    def message(self, verb: str, container_id: str) -> str:
        """One sentence: what failed, and why as far as that is known."""
        begin = f"{self.who} could not {verb} {container_id}"
        says = f"{self.who} says: «{self.diagnosis.line or self.evidence[0]}»."
        if self.diagnosis.matched:
            return f"{begin}: {self.diagnosis.cause} {says}"
        if self.diagnosis.kind == "unknown":
            return f"{begin}, for a reason that is not known here: «{self.diagnosis.line or self.evidence[0]}»."
        return f"{begin}. {self.diagnosis.cause} {says}"

    def details(self) -> dict[str, Any]:
        """For the error's details."""
        return {
            "kind": self.diagnosis.kind,
            "cause": self.diagnosis.cause,
            "errors": list(self.diagnosis.errors) or self.evidence,
            "daemon": self.daemon,
        }

    def remedy(self, log: str) -> str:
        """``log``: the log that is kept; empty for none."""
        found = self.diagnosis
        if found.matched or found.kind != "unknown":
            return f"{found.remedy} The log is {log}." if self.logged and log else found.remedy
        if self.logged:
            return f"{found.remedy} The log is {log}." if log else "Read CRIU's error lines in failure.details.errors."
        if self.criu_ran:
            return (
                "CRIU wrote no log, so it ended before it could: look at its options (`criu` of the call, "
                "/etc/criu/default.conf and runc.conf), at the directory of its log, and at containerd's own log."
            )
        return "CRIU did not run. Look at what the sentence names on this node, and at containerd's own log."


def dump_log(spec: Mapping[str, Any], work: str, begun: float) -> str:
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


def explain_dump(container_id: str, error: RpcError, log: str) -> RestoreError:
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
            "Lower minimum_rate or set checkpoint_timeout, or put staging_dir on a faster disk.",
            outcome=UNKNOWN,
            rpc=error.rpc,
        )
    found = _read(error, log, "dump")
    return RestoreError(
        "criu_dump_failed",
        found.message("dump", container_id),
        found.remedy(""),
        outcome=found.diagnosis.outcome,
        rpc=error.rpc,
        details=found.details(),
    )


def explain_restore(container_id: str, error: RpcError, log: str) -> RestoreError:
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
            "Lower minimum_rate or set restore_timeout, or look at the node's disk and CRIU's log.",
            outcome=UNKNOWN,
            rpc=error.rpc,
            details={"log": log},
        )
    found = _read(error, log, "restore")
    return RestoreError(
        "criu_restore_failed",
        found.message("restore", container_id),
        found.remedy(log),
        outcome=found.diagnosis.outcome,
        rpc=error.rpc,
        details={**found.details(), "log": log if found.logged else ""},
    )


def _read(error: RpcError, log: str, where: str) -> _Findings:
    """``where``: ``dump`` or ``restore``."""
    # Hundreds of patterns, which only a failure has to wait for.
    from .._criu import known_limits, log as criu_log
    from . import diagnose, parts

    said = str(error.details.get("text", ""))
    daemon = "; ".join(said.split("\n"))
    ran = _CRIU_RAN.search(said) is not None
    refused = not ran and _RUNTIME.search(said) is not None
    # Where the runtime has not come to CRIU, the log there is an earlier attempt's.
    kept = os.path.isfile(log) and not refused
    lines = criu_log.error_lines(log) if kept else []
    versions = {known_limits.KERNEL: os.uname().release, **(criu_log.versions(log) if kept else {})}
    telling = [line for line in lines if not (criu_log.is_harmless(line) or criu_log.is_warning(criu_log.clean(line)))]
    own = daemon if ran else parts.bare(said.split("\n", maxsplit=1)[0])
    who = "CRIU" if ran or telling else "The OCI runtime" if refused else "containerd"
    return _Findings(
        diagnosis=diagnose.diagnose([*lines, own], where, versions),
        who=who,
        criu_ran=ran or bool(telling),
        logged=bool(lines),
        evidence=telling or [own],
        daemon=daemon,
    )
