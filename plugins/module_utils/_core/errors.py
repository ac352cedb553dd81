# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one error tree of this collection."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

RETRYABLE = "retryable"
TERMINAL = "terminal"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Failure:
    """Why something failed, as modules tell it under ``failure``."""

    code: str
    outcome: str = TERMINAL
    #: The gRPC method that failed, None where it was none.
    rpc: str | None = None
    #: What to do.
    hint: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def result(self) -> dict[str, Any]:
        """As results and evidence have it."""
        return {
            "code": self.code,
            "outcome": self.outcome,
            "rpc": self.rpc,
            "hint": self.hint,
            "details": self.details,
        }


class RestoreError(Exception):
    """Something that an operator has to hear about: what, where, the likely cause, what to do.

    ``code`` is stable and machine readable (``lower_snake_case``), ``message`` one sentence that names the
    object and the cause, ``remedy`` one sentence that says what to do. ``outcome`` is :data:`RETRYABLE` (the
    same call may work later), :data:`TERMINAL` (it will not until something is changed) or :data:`UNKNOWN`
    (nobody can tell whether the effect took place).
    """

    def __init__(
        self,
        code: str,
        message: str,
        remedy: str = "",
        *,
        outcome: str = TERMINAL,
        rpc: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.outcome = outcome
        self.rpc = rpc
        self.details = dict(details or {})

    def sentence(self) -> str:
        """Message and remedy as one line for ``msg``."""
        return f"{self.message} {self.remedy}".strip()

    def left_behind(self, what: str) -> None:
        """Note in ``details['left_behind']`` what could not be taken away after this failure."""
        before = self.details.get("left_behind")
        self.details["left_behind"] = f"{before}; {what}" if before else what

    def failure(self) -> Failure:
        """What modules return as ``failure``; the sentences are told beside it."""
        return Failure(self.code, self.outcome, self.rpc, self.remedy, dict(self.details))

    def problem(self) -> dict[str, str]:
        """As an entry of ``problems``, for modules that look for all of them and do not fail."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy, "outcome": self.outcome}


class RpcError(RestoreError):
    """A gRPC call failed. ``details['status']`` is the gRPC status name, ``rpc`` the method."""


class NotFoundError(RpcError):
    """The daemon answered NOT_FOUND."""


class AlreadyExistsError(RpcError):
    """The daemon answered ALREADY_EXISTS."""


class PreconditionError(RpcError):
    """The daemon answered FAILED_PRECONDITION."""


class UnavailableError(RpcError):
    """The daemon could not be reached within the time given."""


class DeadlineError(RpcError):
    """The call outlasted its deadline: whether it took effect is unknown."""


class UnimplementedError(RpcError):
    """The daemon does not have this service or method (an older version)."""


class InputError(RestoreError):
    """What we were given (an archive, a checkpoint image, metadata, a parameter) is not usable."""


class ConflictError(RestoreError):
    """The object exists, and is not ours or not from this checkpoint."""


class NodeError(RestoreError):
    """The node lacks something that the restore needs (space, a file, a program, a namespace)."""


def combined(problems: Sequence[RestoreError]) -> RestoreError:
    """Several problems as one error; a single one stays what it is. It may be tried again if each of them may."""
    if len(problems) == 1:
        return problems[0]
    outcomes = {problem.outcome for problem in problems}
    return NodeError(
        problems[0].code if len({problem.code for problem in problems}) == 1 else "node_problems",
        f"{len(problems)} things are missing on this node: "
        + " ".join(f"({number}) {problem.sentence()}" for number, problem in enumerate(problems, 1)),
        "Mend all of them, then run again.",
        outcome=outcomes.pop() if len(outcomes) == 1 else TERMINAL,
        details={"problems": [{"code": problem.code, "message": problem.sentence()} for problem in problems]},
    )


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of space, or of quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(what: str, error: OSError) -> NodeError:
    """The error for a write that found no space; ``what`` begins the message."""
    where = f" of {error.filename}" if error.filename else ""
    return NodeError(
        "disk_full",
        f"{what} cannot be written: the file system{where} is full ({error.strerror}).",
        "Free space on it, then run again.",
        outcome=RETRYABLE,
        details={"path": error.filename},
    )


def refused(error: OSError) -> RestoreError:
    """The error for what the operating system refused and no other code foresees."""
    if is_full(error):
        return disk_full("A file", error)
    return RestoreError("io_error", f"The node's operating system refused: {error}.", "Mend that, then run again.")


def as_failure(error: Exception) -> RestoreError:
    """Any exception as an error of this tree, so that what fails in one workload ends neither the others nor the call.

    One that nobody foresaw is a fault of this collection, met by a document of a kind that no test has.
    """
    if isinstance(error, RestoreError):
        return error
    if isinstance(error, OSError):
        return refused(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = [
        f"{os.path.basename(os.path.dirname(one.filename))}/{os.path.basename(one.filename)}:{one.lineno}"
        for one in frames
    ]
    return RestoreError(
        "internal_error",
        f"This collection did not expect what it met: {type(error).__name__}: {str(error)[:200]}"
        + (f" ({where[-1]})." if where else "."),
        "Report it with failure.details; if a checkpoint from elsewhere was read, do not trust it.",
        details={"type": type(error).__name__, "places": where[-10:]},
    )
