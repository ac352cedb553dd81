# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The facts of a node and of a task on it that a checkpoint records, and whether another node fits them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._containerd import daemon
from .._core.errors import NodeError
from .._host import cgroup, processes as host_processes
from .._oci.facts import CardFacts, Facts, GpuFacts, ProcessFacts

LACKING = "cpu_features_lacking"
#: Flags of /proc/cpuinfo that stand for instructions or registers of a program (kernel: arch/x86 cpufeatures.h). The
#: others speak of the kernel, of virtualisation or of mitigations, and differ between machines that run the same code.
_X86 = frozenset(
    [
        "fpu",
        "mmx",
        "mmxext",
        "sse",
        "sse2",
        "pni",
        "ssse3",
        "sse4_1",
        "sse4_2",
        "sse4a",
        "avx",
        "avx2",
        "avx_vnni",
        "avx_ifma",
        "avx_vnni_int8",
        "avx_ne_convert",
        "fma",
        "fma4",
        "xop",
        "tbm",
        "f16c",
        "aes",
        "vaes",
        "pclmulqdq",
        "vpclmulqdq",
        "gfni",
        "sha_ni",
        "sha512",
        "sm3",
        "sm4",
        "popcnt",
        "abm",
        "bmi1",
        "bmi2",
        "adx",
        "movbe",
        "cx8",
        "cx16",
        "cmov",
        "lahf_lm",
        "rdrand",
        "rdseed",
        "rdtscp",
        "rdpid",
        "fsgsbase",
        "clflush",
        "clflushopt",
        "clwb",
        "clzero",
        "cldemote",
        "movdiri",
        "movdir64b",
        "enqcmd",
        "waitpkg",
        "serialize",
        "hle",
        "rtm",
        "mpx",
        "pku",
        "ospke",
        "xsave",
        "xsaveopt",
        "xsavec",
        "xgetbv1",
        "xsaves",
        "3dnow",
        "3dnowext",
        "3dnowprefetch",
        "prefetchwt1",
        "erms",
        "fsrm",
        "lzcnt",
        "monitorx",
        "mwaitx",
    ]
)
_X86_PREFIXES = ("avx512", "avx10", "amx_")
_X86_MACHINES = ("amd64", "x86_64", "i386")
_CGROUPS = {cgroup.V1: "v1", cgroup.HYBRID: "hybrid", cgroup.UNIFIED: "v2"}


@dataclass(frozen=True)
class Comparison:
    """What keeps a checkpoint from running here (sentences by code), and what may."""

    problems: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def features(architecture: str, flags: Iterable[str]) -> list[str]:
    """Those flags of a CPU that programs depend on, sorted."""
    if architecture not in _X86_MACHINES:
        return sorted(set(flags))
    return sorted({flag for flag in flags if flag in _X86 or flag.startswith(_X86_PREFIXES)})


def node(path: str, runtime: str, cpuinfo: str = "/proc/cpuinfo") -> Facts:
    """The node's part. ``path`` is the daemon's PATH; versions are empty where a program does not tell."""
    architecture = os.uname().machine
    model, flags = cpu(architecture, cpuinfo)
    return Facts(
        kernel=os.uname().release,
        architecture=architecture,
        cpu_model=model,
        cpu_features=flags,
        runtime=runtime,
        runtime_version=daemon.find_program("runc", path).version,
        criu=daemon.find_program("criu", path).version,
        cgroup=_cgroup_mode(),
    )


def cpu(architecture: str, cpuinfo: str = "/proc/cpuinfo") -> tuple[str, tuple[str, ...]]:
    """Model and features of the first CPU (proc_cpuinfo(5)); x86 calls them flags, arm64 Features."""
    model, flags = "", []
    with open(cpuinfo, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            name, _colon, value = line.partition(":")
            name = name.strip()
            if name in ("model name", "CPU implementer") and not model:
                model = value.strip()
            elif name in ("flags", "Features"):
                flags = value.split()
            elif not line.strip():
                break
    return model, tuple(features(architecture, flags))


def gpu(info: Mapping[str, Any], proc: str = "/proc") -> GpuFacts | None:
    """The GPU's part, from what ``cuda_process_info`` found before the processes were suspended; None without any."""
    processes = info["processes"]
    if not processes:
        return None
    used = {card["uuid"]: card for process in processes for card in process["gpus"]}
    return GpuFacts(
        driver=info["driver"]["version"],
        cuda=info["driver"]["cuda"],
        cards=tuple(CardFacts(card["uuid"], card["index"], card["name"]) for card in used.values()),
        visible=tuple(sorted({uuid for process in processes for uuid in process["visible"]})),
        processes=tuple(
            ProcessFacts(
                _memory(process, info["nvml"]["available"]),
                {card["uuid"]: card["memory"] for card in process["gpus"]},
                host_processes.namespaced_pid(process["pid"], proc),
            )
            for process in processes
        ),
    )


def _memory(process: Mapping[str, Any], told: bool) -> int | None:
    """One that NVML does not list on any GPU has CUDA state alone, as a launcher of ranks has."""
    memory: int | None = process["memory"]
    return 0 if memory is None and told and not process["gpus"] else memory


def compare(recorded: Facts, here: Facts) -> Comparison:
    """What of the checkpoint's node is other than on this one. Facts that one side does not know are not compared."""
    problems: dict[str, str] = {}
    warnings: list[str] = []
    if recorded.architecture and recorded.architecture != here.architecture:
        problems["architecture_differs"] = (
            f"The checkpoint was taken on {recorded.architecture}, and this node is {here.architecture}."
        )
    elif recorded.cpu_features and here.cpu_features:
        lacking = set(features(recorded.architecture, recorded.cpu_features)) - set(here.cpu_features)
        if lacking:
            problems[LACKING] = (
                f"This node's CPU lacks {', '.join(sorted(lacking))}, which the CPU of the checkpoint has: a program "
                "that uses them would crash, and CRIU refuses."
            )
    _differs(warnings, "kernel", recorded.kernel, here.kernel)
    _differs(warnings, "CRIU", recorded.criu, here.criu)
    _differs(warnings, "cgroup mode", recorded.cgroup, here.cgroup)
    _differs(warnings, "runtime", recorded.runtime_version, here.runtime_version)
    if recorded.gpu and here.gpu:
        _differs(warnings, "NVIDIA driver", recorded.gpu.driver, here.gpu.driver)
    return Comparison(problems, tuple(warnings))


def _cgroup_mode() -> str | None:
    try:
        return _CGROUPS[cgroup.mode()]
    except NodeError:
        return None


def _differs(warnings: list[str], what: str, was: str | None, now: str | None) -> None:
    if was and now and was != now:
        warnings.append(f"The checkpoint was taken with {what} {was}; this node has {now}.")
