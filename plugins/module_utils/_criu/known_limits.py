# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What certain versions of CRIU, the kernel and the NVIDIA driver cannot do, with certain workloads.

Preflights ask it before anything is touched, the diagnosis explains a log with the same lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KERNEL, CRIU, DRIVER = "kernel", "criu", "driver"
DUMP, RESTORE, CUDA = "dump", "restore", "cuda"

#: What a workload has, as preflights know it.
INET_SOCKETS = "inet_sockets"
OWN_NETWORK = "own_network"


@dataclass(frozen=True)
class Range:
    """Versions ``since`` one, the first that is meant, and ``below`` another; empty: no such border."""

    since: str = ""
    below: str = ""

    def holds(self, version: str) -> bool:
        """Whether a version is one of these; one that cannot be read is not."""
        found = parse(version)
        if not found or (self.since and found < parse(self.since)):
            return False
        return not self.below or found < parse(self.below)


@dataclass(frozen=True)
class Limit:
    """One line of the table."""

    #: Unique and stable: the diagnosis has it as the kind.
    kind: str
    #: DUMP, RESTORE or CUDA.
    at: str
    #: All of them are necessary.
    versions: Mapping[str, Range]
    #: What happens, as a sentence.
    cause: str
    remedy: str
    #: What of a workload it concerns, where a preflight can know that.
    concerns: str = ""
    #: Regular expressions for the lines of a log that tell it.
    patterns: tuple[str, ...] = ()
    #: Parts of a workload (of the diagnosis) where it may be the reason, if no line tells.
    parts: tuple[str, ...] = ()


INET_SOCKET_OPTIONS = Limit(
    "inet-socket-options",
    DUMP,
    {KERNEL: Range(since="6.16"), CRIU: Range(below="4.2")},
    "CRIU before 4.2 asks each TCP or UDP socket for an option that Linux 6.16 and later do not have for them, so it "
    "can dump no such socket.",
    "Install CRIU 4.2 or newer on this node.",
    INET_SOCKETS,
    (r"can't get 1:(?:16|34) opt: operation not supported",),
    ("sockets", "sockets-inet", "sockets-tcp"),
)
SCRIPTS = Limit(
    "scripts-under-runc",
    RESTORE,
    {CRIU: Range(below="3.19")},
    "CRIU before 3.19 runs no scripts under runc, so the loopback interface of a network namespace that it makes stays "
    "down.",
    "Install CRIU 3.19 or newer on this node.",
    OWN_NETWORK,
)
LINK_REMAP_OVERLAY = Limit(
    "link-remap-overlay",
    DUMP,
    {CRIU: Range(below="3.17")},
    "A mapped file of a lower overlay layer was deleted in the container, and this CRIU cannot link it.",
    "Use CRIU 3.17 or newer, which keeps such a file as a ghost file.",
    patterns=(r"trim failed: @",),
    parts=("files",),
)
PARTIAL_PASSTHROUGH = Limit(
    "cuda-partial-passthrough",
    CUDA,
    {DRIVER: Range(below="575.57.08")},
    "The driver does not permit the checkpoint; drivers before 575.57 refuse it where a container "
    "sees only some GPUs of the host.",
    "Update the driver to 575.57.08 or newer, or give the container all GPUs of the host.",
    patterns=(
        r'could not checkpoint on process ID \d+: "?operation not permitted',
        r"CHECKPOINT_DEVICES failed with.*operation not permitted",
        r"cuCheckpointProcessCheckpoint\W+.*(?:CUDA_ERROR_NOT_PERMITTED|operation not permitted)",
    ),
    parts=("cuda",),
)
DRIVER_ACTIONS = Limit(
    "cuda-driver-action",
    CUDA,
    {DRIVER: Range(below="570")},
    "The driver's cuda-checkpoint does not know single actions (lock, checkpoint, restore, unlock).",
    "Update the driver to 570 or newer on this node.",
    patterns=(r"--action flag not supported", r"r555 or higher version driver is required"),
    parts=("cuda",),
)
SECCOMP_FILTERS = Limit(
    "seccomp-filters",
    DUMP,
    {CRIU: Range(below="2.0")},
    "CRIU before 2.0 cannot dump a process with a seccomp filter.",
    "Install CRIU 2.0 or newer, or run the container with seccomp unconfined.",
    patterns=(r"SECCOMP_MODE_FILTER not currently supported",),
    parts=("seccomp",),
)
TIMER_THREADS = Limit(
    "timer-notify-thread",
    DUMP,
    {CRIU: Range(below="4.3")},
    "CRIU up to 4.2 cannot dump a POSIX timer that notifies the first thread of a process, or one that has ended.",
    "Install a newer CRIU (fixes 2892 and 3117), or start the workload without what makes such timers (a profiler).",
    patterns=(r"unable to convert the notify thread id",),
    parts=("timers",),
)
HUGE_PAGES = Limit(
    "huge-pages",
    DUMP,
    {CRIU: Range(below="3.17")},
    "CRIU before 3.17 does not know memory of huge pages (MAP_HUGETLB).",
    "Install CRIU 3.17 or newer on this node.",
    patterns=(r"can't lookup mount\s*=\s*-?\d+ for fd\s*=\s*-\d+ path\s*=\s*/anon_hugepage\b",),
    parts=("memory",),
)
XSAVE_AREA = Limit(
    "cpu-xsave-area",
    DUMP,
    {CRIU: Range(below="3.19")},
    "CRIU before 3.19 has too little room for the registers of CPUs with AMX (Sapphire Rapids and later).",
    "Install CRIU 3.19 or newer on this node.",
    patterns=(r"can't set FPU registers for \d+: bad address",),
    parts=("cpu",),
)
RSEQ = Limit(
    "rseq-unknown",
    RESTORE,
    {CRIU: Range(below="3.17")},
    "CRIU before 3.17 does not know restartable sequences, which glibc 2.35 and later register.",
    "Install CRIU 3.17 or newer, or start the workload with GLIBC_TUNABLES=glibc.pthread.rseq=0.",
    parts=("rseq",),
)

TABLE: tuple[Limit, ...] = (
    INET_SOCKET_OPTIONS,
    SCRIPTS,
    LINK_REMAP_OVERLAY,
    PARTIAL_PASSTHROUGH,
    DRIVER_ACTIONS,
    SECCOMP_FILTERS,
    TIMER_THREADS,
    HUGE_PAGES,
    XSAVE_AREA,
    RSEQ,
)


def parse(version: str) -> tuple[int, ...]:
    """The numbers that a version such as ``6.18.44-cloud`` begins with; empty where it does not."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    return tuple(map(int, found.group(1).split("."))) if found else ()


def applying(at: str, concerns: Iterable[str], versions: Mapping[str, str]) -> list[Limit]:
    """The lines that a workload which has these meets there, with these versions by KERNEL, CRIU and DRIVER."""
    present = set(concerns)
    return [limit for limit in TABLE if limit.at == at and limit.concerns in present and applies(limit, versions)]


def known_of(part: str, at: str | None, versions: Mapping[str, str]) -> list[Limit]:
    """The lines for a part of a workload that hold for these versions; ``at`` None: wherever it was."""
    return [limit for limit in TABLE if part in limit.parts and at in (None, limit.at) and applies(limit, versions)]


def applies(limit: Limit, versions: Mapping[str, str]) -> bool:
    """Whether all versions are those that it is about."""
    return all(wanted.holds(versions.get(program, "")) for program, wanted in limit.versions.items())
