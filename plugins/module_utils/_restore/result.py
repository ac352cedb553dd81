# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What became of one workload of a restore."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .._checkpoint import differences
from .._container import params as container_params
from .._container.task_params import TaskResult
from .._core.errors import UNKNOWN, Failure, RestoreError
from .._gpu import nvml
from .._probe.probe import ProbeResult
from . import gpu as restore_gpu
from .params import Job


@dataclass(frozen=True)
class WorkloadFailure:
    """Why a workload does not run."""

    step: str
    #: The error as one line.
    msg: str
    error: Failure
    #: Path of the bundle; empty where none was kept.
    evidence: str = ""
    #: What could not be taken away again.
    left_behind: str = ""

    @property
    def code(self) -> str:
        """Of the error."""
        return self.error.code

    @property
    def outcome(self) -> str:
        """Of the error."""
        return self.error.outcome

    def result(self) -> dict[str, Any]:
        """As results and evidence have it."""
        return {
            "step": self.step,
            "code": self.code,
            "outcome": self.outcome,
            "msg": self.msg,
            "failure": self.error.result(),
            "evidence": self.evidence,
            "left_behind": self.left_behind,
        }

    def with_evidence(self, work: str, bundle: str) -> WorkloadFailure:
        """The same with its evidence; the files below ``work`` that it names are in ``bundle`` from now on."""
        hint, details = _replaced((self.error.hint, self.error.details), work, bundle)
        return dataclasses.replace(
            self,
            msg=self.msg.replace(work, bundle),
            error=dataclasses.replace(self.error, hint=hint, details=details),
            evidence=bundle,
            left_behind=self.left_behind.replace(work, bundle),
        )

    def with_left_behind(self, what: str) -> WorkloadFailure:
        """The same with more that could not be taken away, so how it ended is unknown."""
        left = "; ".join(part for part in (self.left_behind, what) if part)
        details = {**self.error.details, "left_behind": left}
        error = dataclasses.replace(self.error, outcome=UNKNOWN, details=details)
        return dataclasses.replace(self, error=error, left_behind=left)


def _replaced(value: Any, old: str, new: str) -> Any:
    """A JSON value with ``old`` replaced in each of its texts."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {key: _replaced(part, old, new) for key, part in value.items()}
    return [_replaced(part, old, new) for part in value] if isinstance(value, (list, tuple)) else value


@dataclass
class Result:
    """What became of one workload. ``failure`` is None where it runs as wanted; ``seconds`` by step."""

    job: Job
    step: str = ""
    container: container_params.ContainerResult = field(default_factory=container_params.ContainerResult)
    task: TaskResult = field(default_factory=TaskResult)
    gpu: restore_gpu.GpuResult = field(default_factory=restore_gpu.GpuResult)
    gpu_seen: nvml.Reading | None = None
    #: None where none was made.
    probe: ProbeResult | None = None
    #: What the workload was told; None where it was not.
    after_restore: ProbeResult | None = None
    #: :meth:`Preparation.result` as it was in the window.
    preparation: dict[str, Any] = field(default_factory=dict)
    hook_actions: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    receipt: dict[str, Any] = field(default_factory=dict)
    receipt_written: bool = False
    warnings: list[str] = field(default_factory=list)
    failure: WorkloadFailure | None = None

    @property
    def changed(self) -> bool:
        """Whether something was, or in check mode would be, changed. What was taken back again is no change."""
        return self.failure is None and (
            self.container.changed
            or self.task.changed
            or self.gpu.changed
            or self.after_restore is not None
            or self.receipt_written
        )

    @property
    def differences(self) -> list[dict[str, Any]] | None:
        """What is other than it was, the files included; None where it cannot be told of the task."""
        if self.task.differences is None:
            return None
        return [*differences.results(self.container.differences), *self.task.differences]

    def shown(self) -> dict[str, Any]:
        """As the module returns it."""
        return {
            "changed": self.changed,
            "actions": [*self.container.actions, *self.task.actions, *self.gpu.actions, *self.hook_actions],
            "container": self.container.container,
            "created": {"container": self.container.created, "task": self.task.created},
            "spec_changes": self.container.spec_changes,
            "task": self.task.task,
            "gpu": self.gpu.result(after=self.gpu_seen) if self.gpu.processes else None,
            "probe": self.probe.result() if self.probe else None,
            "after_restore": self.after_restore.result() if self.after_restore else None,
            "differences": self.differences,
            "not_compared": self.task.not_compared,
            **self.preparation,
            "seconds": self.seconds,
            "receipt": self.receipt,
            "failure": self.failure.result() if self.failure else None,
        }

    def state(self, when: str) -> dict[str, Any]:
        """For the diff, ``when`` being before or after."""
        spec = self.container.spec_before if when == "before" else self.container.spec_after
        return {
            "task": self.task.before if when == "before" else self.task.after,
            "cuda": {str(process["pid"]): process[when] for process in self.gpu.processes},
            **({"spec": spec} if self.container.changed else {}),
        }

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Note how long a step takes, and that it was at it when something fails."""
        self.step = step
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = round(time.monotonic() - begun, 3)

    def fail(self, error: RestoreError) -> None:
        """Note why the workload does not run."""
        left = str(error.details.get("left_behind", ""))
        self.failure = WorkloadFailure(self.step, error.sentence(), error.failure(), left_behind=left)
