# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One fault at one call: the step is struck, run again, found converged, undone, and the node is as it was."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import in_node
from gpuops_lab import node as lab_node, workload
from gpuops_lab.config import LabError, Node
from gpuops_lab.listing import Listing, difference, listing

from gpuops_faults import steps
from gpuops_faults.steps import Step

DRIVER = pathlib.Path(__file__).resolve().parents[1] / "fault_at.py"
_CALLS = "/run/gpuops-lab/calls"
#: runc's mark of a container that was dumped once, and the node's own root, whose options a reboot may write otherwise.
_EXPECTED = (f"/run/containerd/runc/k8s.io/{steps.SOURCE}/checkpoint", " / overlay ")
#: What a source that was started anew, after a reboot, has others of.
_CHANGING = re.compile(r"(?<=/snapshots/)\d+(?=/)")
REBOOT, FULL = "reboot", "full-before"
FAULTS = ("kill-before", "kill-after", "daemon-before", "daemon-after", FULL, REBOOT)
#: File systems that FULL fills, and their MiB: containerd's, and ours.
_DISKS = {"/var/lib/containerd": 512, "/var/lib/gpuops-restore": 512}
#: How a struck run ended.
KILLED, SUCCEEDED = "killed", "succeeded"


@dataclasses.dataclass
class Outcome:
    """What came of one fault."""

    step: str
    fault: str
    number: int
    #: Name of the call that it struck at.
    call: str
    #: ``killed``, ``succeeded``, or the outcome and code of its failure.
    first: str = ""
    #: What was wrong afterwards; empty: nothing.
    wrong: str = ""
    seconds: float = 0.0


class Bench:
    """A node that is struck, again and again. ``small``: its disks can be filled, and do not outlive a reboot."""

    def __init__(self, node: Node, small: bool) -> None:
        self.node = node
        if small:
            lab_node.control(node, "stop")
            for path, size in _DISKS.items():
                lab_node.output(node, ["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=0700", "tmpfs", path])
            lab_node.control(node, "start")
            lab_node.await_containerd(node)
        in_node.install(node, DRIVER.parents[2])
        shutil.copyfile(DRIVER, node.inside(f"{in_node.LIBRARY}/fault_at.py"))
        steps.prepare(node)

    def calls(self, step: Step) -> list[str]:
        """The names of the calls that the step makes where nothing goes wrong; undone again."""
        self._ready(step)
        self._struck(step, "none", 0)
        found = self.node.inside(_CALLS).read_text(encoding="ascii").split()
        self._undo(step)
        return found

    def strike(self, step: Step, fault: str, number: int, call: str) -> Outcome:
        """The fault at that call (1 is the first), and what comes afterwards."""
        outcome = Outcome(step.name, fault, number, call)
        begun = time.monotonic()
        before: Listing = {}
        try:
            before = self._listing()
            self._ready(step)
            outcome.first = self._reboot(step, number) if fault == REBOOT else self._struck(step, fault, number)
            for path in _DISKS:
                self.node.inside(f"{path}/filler").unlink(missing_ok=True)
            lab_node.await_containerd(self.node)
            self._again(step, fault)
        except (AssertionError, LabError, subprocess.TimeoutExpired) as error:
            outcome.wrong = " ".join(str(error).split())[:600]
        try:
            self._undo(step)
            left = self._left(before)
            if left and not outcome.wrong:
                outcome.wrong = f"left: {left[:8]}"
        except (AssertionError, LabError) as error:
            outcome.wrong = outcome.wrong or " ".join(str(error).split())[:600]
        outcome.seconds = round(time.monotonic() - begun, 2)
        return outcome

    def _left(self, before: Listing) -> list[str]:
        deadline = time.monotonic() + 5.0
        while True:
            # The log grows by the source's numbers.
            found = difference(before, self._listing(), ("log",))
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def _listing(self) -> Listing:
        return {
            kind: [_CHANGING.sub("*", row) for row in rows if not any(mark in row for mark in _EXPECTED)]
            for kind, rows in listing(self.node).items()
        }

    def _ready(self, step: Step) -> None:
        for name, options in step.before:
            steps.succeed(self.node, name, options)

    def _undo(self, step: Step) -> None:
        for name, options in step.undo:
            steps.succeed(self.node, name, options)

    def _again(self, step: Step, fault: str) -> None:
        """The same call finishes; once more, it changes nothing; and the workload counts on."""
        if fault == REBOOT:
            # As each run of the roles begins, and what the README names for those who use modules alone.
            steps.succeed(self.node, "containerd_leftovers", {})
            # What ran is gone, as after any reboot; the counter begins anew.
            workload.delete(self.node, steps.SOURCE)
            steps.start_source(self.node)
            workload.await_count(self.node, steps.SOURCE, 3)
        steps.succeed(self.node, *step.call)
        assert not steps.succeed(self.node, *step.call)["changed"], "the third run changes something"
        steps.check_counting(self.node, step.counting)
        if step.counting != steps.SOURCE:
            steps.check_counting(self.node, steps.SOURCE)

    def _command(self, step: Step, fault: str, number: int) -> Sequence[str]:
        library = in_node.LIBRARY
        self.node.inside(_CALLS).unlink(missing_ok=True)
        script = f"{library}/fault_at.py"
        enter = [str(self.node.directory / "enter"), "env", f"PYTHONPATH={library}", in_node.PYTHON]
        return [*enter, script, step.call[0], fault, str(number)]

    def _struck(self, step: Step, fault: str, number: int) -> str:
        done = subprocess.run(
            self._command(step, fault, number),
            input=json.dumps({"ANSIBLE_MODULE_ARGS": dict(step.call[1])}),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        found: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
        if not found:
            assert done.returncode in (-9, 137), f"it ended with status {done.returncode}: {done.stderr[-400:]}"
            return KILLED
        if not found.get("failed"):
            return SUCCEEDED
        # A window tells of each workload.
        failures = [each["failure"] for each in found.get("workloads", {}).values() if each.get("failure")]
        failure = found.get("failure") or failures[0]
        return f"{failure['outcome']} {failure['code']}"

    def _reboot(self, step: Step, number: int) -> str:
        """The node goes down when the call was made, and comes up again."""
        process = subprocess.Popen(
            self._command(step, "stop-after", number),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": dict(step.call[1])}).encode())
        process.stdin.close()
        calls = self.node.inside(_CALLS)
        deadline = time.monotonic() + 60
        while process.poll() is None and (
            not calls.exists() or len(calls.read_text(encoding="ascii").split()) < number
        ):
            assert time.monotonic() < deadline, "it did not come to the call"
            time.sleep(0.01)
        time.sleep(0.05)
        lab_node.reboot(self.node)
        process.wait(30)
        return KILLED
