# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the second step: the part that failed is named, and no cause."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._criu import known_limits
from ansible_collections.gpuops.restore.plugins.module_utils._criu.log import clean, origin
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis import parts
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis.diagnose import diagnose

DATA = Path(__file__).parents[3] / "data"
ROOT = Path(__file__).parents[5]
ENDS = ("", ": No such file or directory", ": Device or resource busy", ": Bad file descriptor", ": Permission denied")

# What nobody has seen, in files that serve many parts, and of the runtime: the words tell it.
MADE_UP = {
    "Error (criu/cr-restore.c:1): Can't wind up the itimers again": "timers",
    "pie: 7: Error (criu/pie/restorer.c:1): Can't arm posix timer 3: -22": "timers",
    "Error (criu/cr-dump.c:1): The pty is upside down": "terminals",
    "Error (criu/proc_parse.c:1): Strange mountinfo of 7": "mounts",
    "Error (criu/proc_parse.c:1): Seccomp line is too long": "seccomp",
    "pie: 7: Error (criu/pie/restorer.c:1): Can't mremap the vma back": "memory",
    "pie: 7: Error (criu/pie/restorer.c:1): rseq does not want to": "rseq",
    "pie: 7: Error (criu/pie/restorer.c:1): Can't put the sigaction back": "signals",
    "pie: 7: Error (criu/pie/restorer.c:1): Can't take groups": "credentials",
    "Error (criu/cr-restore.c:1): Can't set the rlimit of a kind": "limits",
    "Error (criu/util.c:1): Can't enter the netns": "network",
    "Error (criu/util.c:1): The userns daemon sleeps": "namespaces",
    "Error (criu/parasite-syscall.c:1): The parasite wants more": "tracing",
    "Error (criu/seize.c:1): The freezer is warm": "cgroups",
    "Error (criu/sockets.c:1): sockets: Something with a sockopt": "sockets",
    "Error (compel/arch/x86/src/lib/infect.c:1): Can't get FPU registers of 7": "cpu",
    "Error (criu/arch/aarch64/crtools.c:1): New keys are needed": "cpu",
    "tty: it has no colour, failed": "terminals",
    "cg: cannot sing": "cgroups",
    "OCI runtime restore failed: unable to apply apparmor profile: the moon is full: unknown": "security-labels",
    "OCI runtime restore failed: seccomp: filter of a third kind is not to be had: unknown": "seccomp",
    "OCI runtime restore failed: error setting cgroup config for procHooks process: too cold: unknown": "cgroups",
    'OCI runtime restore failed: error mounting "a" to rootfs at "b": too far: unknown': "mounts",
    "OCI runtime restore failed: unable to get the console: nobody there: unknown": "terminals",
    "OCI runtime restore failed: the user namespace cannot be mapped: unknown": "namespaces",
    "OCI runtime restore failed: unable to set the sysctl of the day: unknown": "sysctls",
    "OCI runtime restore failed: unable to apply caps: too many: unknown": "credentials",
    "runc did not terminate successfully: exit status 1: error creating device nodes: out of wood: unknown": "devices",
    "failed to create shim task: snapshot has no such flavour: unknown": "snapshots",
    "rpc error: code = Unknown desc = content cannot be had today": "content",
}

#: What no table knows of newer kernels and runtimes, and of CRIU's files for one part each.
UNSEEN = {
    each["line"]: each["part"]
    for each in map(json.loads, (DATA / "unseen.jsonl").read_text(encoding="utf-8").splitlines())
}


def test_every_source_file_of_one_part_names_it() -> None:
    for part in parts.PARTS:
        for source in part.sources:
            for end in ENDS:
                line = clean(f"(00.1) Error (criu/{source}.c:77): The moon is full{end}")
                found = parts.part_of(origin(line))
                assert found is not None and found.name == part.name, line


@pytest.mark.parametrize(("line", "part"), [*MADE_UP.items(), *UNSEEN.items()])
def test_words_name_the_part(line: str, part: str) -> None:
    for where in ("dump", "restore", None):
        found = diagnose([line], where)
        assert not found.matched
        assert found.kind == f"unknown-{part}"
        assert "not known here" in found.cause and found.remedy.startswith("That usually depends on ")


def test_lines_that_nobody_looked_at() -> None:
    """Sixty lines drawn from CRIU 2.12 to 4.2 when all words were written: 54 right, 3 no part, 3 wrong."""
    lines = [json.loads(line) for line in (DATA / "parts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 60
    right, wrong = 0, []
    for each in lines:
        found = diagnose([each["line"]])
        part = found.category if found.matched else found.kind.partition("-")[2]
        if found.matched or part in each["parts"]:
            right += 1
        elif part:
            wrong.append(each["line"])
    assert right >= 54 and len(wrong) <= 3, wrong


def test_the_first_line_that_tells_it_wins_over_one_that_does_not() -> None:
    lines = ["Error (criu/cr-dump.c:1): It went wrong", "Error (criu/timer.c:2): The moon is full"]
    found = diagnose(lines)
    assert (found.kind, found.line) == ("unknown-timers", lines[0])
    assert diagnose(lines[:1]).kind == "unknown-processes"


def test_a_consequence_does_not_hide_the_part() -> None:
    lines = [
        "(00.1) 7: Error (criu/tty.c:5): tty: The moon is full",
        "(00.2) Error (criu/cr-restore.c:1517): 4715 killed by signal 9: Killed",
        "(00.3) Error (criu/filesystems.c:455): Can't restore tmpfs content",
    ]
    assert diagnose(lines).kind == "unknown-terminals"
    assert diagnose(lines[1:]).kind == "tmpfs-content"


def test_what_is_known_of_versions_is_told_of_its_part_only() -> None:
    old = {known_limits.KERNEL: "6.18.44", known_limits.CRIU: "4.1.1"}
    new = {**old, known_limits.CRIU: "4.2.1"}
    limit = known_limits.INET_SOCKET_OPTIONS
    inet, tty = "Error (criu/sk-inet.c:1): inet: New", "Error (criu/tty.c:1): tty: New"
    assert limit.cause in diagnose([inet], "dump", old).remedy
    assert limit.cause not in diagnose([inet], "dump", new).remedy
    assert limit.cause not in diagnose([inet], "restore", old).remedy
    assert limit.cause not in diagnose([tty], "dump", old).remedy
    assert limit.cause not in diagnose([inet], "dump").remedy


def test_limits_name_parts_that_are() -> None:
    names = {part.name for part in parts.PARTS}
    for limit in known_limits.TABLE:
        assert set(limit.parts) <= names, limit.kind


def test_parts_are_well_formed_and_documented() -> None:
    names = [part.name for part in parts.PARTS]
    assert len(set(names)) == len(names)
    sources = [source for part in parts.PARTS for source in part.sources]
    assert len(set(sources)) == len(sources)
    documented = set(re.findall(r"`unknown-([a-z-]+)`", (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")))
    assert documented == set(names)
    for part in parts.PARTS:
        assert part.look.endswith(".") and not part.depends.endswith(".") and not part.what.endswith(".")
        assert part.sources or part.words is not None
