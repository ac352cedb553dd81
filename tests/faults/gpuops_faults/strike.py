# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One fault at one call: the step is struck, run again, found converged, undone, and the node is as it was."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Collection, Iterator

from gpuops_lab import node as lab_node, workload
from gpuops_lab.config import LabError, Node
from gpuops_lab.listing import Listing, difference, listing

from gpuops_faults import counters, steps
from gpuops_faults.modules import Interpreter, Run
from gpuops_faults.steps import Step

#: runc's mark of a container that was dumped once, and the node's own root, whose options a reboot may write otherwise.
_EXPECTED = (f"/run/containerd/runc/k8s.io/{steps.SOURCE}/checkpoint", " / overlay ")
#: What a source that was started anew, after a reboot, has others of.
_CHANGING = re.compile(r"(?<=/snapshots/)\d+(?=/)")
REBOOT, FULL = "reboot", "full-before"
FAULTS = ("kill-before", "kill-after", "daemon-before", "daemon-after", FULL, REBOOT)
#: File systems that FULL fills, and their MiB: containerd's, and ours.
_DISKS = {"/var/lib/containerd": 512, "/var/lib/gpuops-restore": 512}
#: How a struck run ended. One that made fewer calls than it was to be struck at was not struck.
KILLED, SUCCEEDED, MISSED = "killed", "succeeded", "not struck"
_PROBLEMS = (AssertionError, LabError, OSError)


@dataclasses.dataclass
class Outcome:
    """What came of one fault."""

    step: str
    fault: str
    number: int
    #: Name of the call that it struck at.
    call: str
    #: ``killed``, ``succeeded``, ``not struck``, or the outcome and code of its failure.
    first: str = ""
    #: What was wrong afterwards; empty: nothing.
    wrong: str = ""
    #: By phase.
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What the block takes is that phase's time."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - begun, 3)


class Bench:
    """A node that is struck, again and again, in any of the steps ``made``.

    ``small``: its disks can be filled, and do not outlive a reboot.
    """

    def __init__(self, node: Node, small: bool, made: Collection[Step]) -> None:
        self.node = node
        self.small = small
        if small:
            lab_node.control(node, "stop")
            for path, size in _DISKS.items():
                lab_node.output(node, ["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=0700", "tmpfs", path])
            lab_node.control(node, "start")
            lab_node.await_containerd(node)
        self._interpreter = Interpreter(node)
        steps.prepare(node, self._interpreter)
        #: The names of the calls that each step makes where nothing goes wrong. Each is made at the beginning,
        #: so that what it leaves for good, as a receipt, is there already.
        self.calls = {step.name: self._calls(step) for step in made}
        #: The node as it is between two faults: what one leaves is seen by the comparison after it.
        self._before = self._listing()
        #: The same as ctr sees it, before the first.
        self._first = _comparable(listing(self.node))

    def strike(self, step: Step, fault: str, number: int, call: str) -> Outcome:
        """The fault at that call (1 is the first), and what comes afterwards."""
        outcome = Outcome(step.name, fault, number, call)
        try:
            with outcome.phase("ready"):
                self._ready(step)
            with outcome.phase("struck"):
                outcome.first = self._struck(step, fault, number)
            self._again(step, fault, outcome)
        except _PROBLEMS as error:
            outcome.wrong = " ".join(str(error).split())[:600]
        try:
            with outcome.phase("undone"):
                self._undo(step)
            with outcome.phase("compared"):
                left = self._left()
            if left and not outcome.wrong:
                outcome.wrong = f"left: {left[:8]}"
        except _PROBLEMS as error:
            outcome.wrong = outcome.wrong or " ".join(str(error).split())[:600]
        return outcome

    def left_in_the_end(self) -> list[str]:
        """What ctr says is there and was not before the first fault, or the other way about."""
        return difference(self._first, _comparable(listing(self.node)), ("log",))

    def _left(self) -> list[str]:
        deadline = time.monotonic() + 5.0
        while True:
            now = self._listing()
            # The log grows by the source's numbers.
            found = difference(self._before, now, ("log",))
            if not found or time.monotonic() > deadline:
                self._before = now
                return found
            time.sleep(0.2)

    def _listing(self) -> Listing:
        return _comparable(self._interpreter.listing())

    def _calls(self, step: Step) -> list[str]:
        self._ready(step)
        found = self._interpreter.run(*step.call)
        assert not found.result.get("failed"), f"{step.name}: {found.result.get('msg')}"
        self._undo(step)
        return found.calls

    def _ready(self, step: Step) -> None:
        for name, options in step.before:
            self._interpreter.succeed(name, options)

    def _undo(self, step: Step) -> None:
        for name, options in step.undo:
            self._interpreter.succeed(name, options)

    def _struck(self, step: Step, fault: str, number: int) -> str:
        """How the run with the fault ended. The node is up again, and has room, afterwards."""
        run = self._interpreter.run(*step.call, "stop-after" if fault == REBOOT else fault, number)
        if fault == REBOOT:
            assert run.stopped, f"it did not come to the call: {run}"
            lab_node.reboot(self.node)
            self._interpreter.start()
            return KILLED
        for path, size in _DISKS.items() if fault == FULL else ():
            lab_node.output(self.node, ["mount", "-o", f"remount,size={size}m", path])
            self.node.inside(f"{path}/filler").unlink(missing_ok=True)
        if not fault.startswith("kill"):
            lab_node.await_containerd(self.node)
        return _ended(run, number)

    def _again(self, step: Step, fault: str, outcome: Outcome) -> None:
        """The same call finishes; once more, it changes nothing; and the workload counts on."""
        if fault == REBOOT:
            with outcome.phase("rebooted"):
                # As each run of the roles begins, and what the README names for those who use modules alone.
                self._interpreter.succeed("containerd_leftovers", {})
                # What ran is gone, as after any reboot; the counter begins anew.
                workload.ctr(self.node, workload.NAMESPACE, "containers", "rm", steps.SOURCE)
                workload.start_imported(self.node, steps.SOURCE, steps.MIB)
                counters.await_number(self.node, counters.pids(self.node, [steps.SOURCE])[steps.SOURCE], 1)
        with outcome.phase("again"):
            self._interpreter.succeed(*step.call)
            pids = counters.pids(self.node, {step.counting, steps.SOURCE})
            since = {container: counters.latest(self.node, pid) for container, pid in pids.items()}
        with outcome.phase("third"):
            assert not self._interpreter.succeed(*step.call)["changed"], "the third run changes something"
        with outcome.phase("counting"):
            for container, pid in pids.items():
                counters.await_number(self.node, pid, since[container] + counters.MORE)
                counters.check_log(self.node, pid)
            counters.check_task(self.node, step.counting)


def _comparable(found: Listing) -> Listing:
    return {
        kind: [_CHANGING.sub("*", row) for row in rows if not any(mark in row for mark in _EXPECTED)]
        for kind, rows in found.items()
    }


def _ended(run: Run, number: int) -> str:
    if run.killed:
        return KILLED
    found = run.result
    if len(run.calls) < number:
        return MISSED
    if not found.get("failed"):
        return SUCCEEDED
    # A window tells of each workload.
    failures = [each["failure"] for each in found.get("workloads", {}).values() if each.get("failure")]
    failure = found.get("failure") or failures[0]
    return f"{failure['outcome']} {failure['code']}"
