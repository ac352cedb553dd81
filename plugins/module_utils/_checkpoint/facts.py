# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The facts of a node that decide whether a checkpoint fits another, and their comparison.

They are the annotation ``io.gpuops.restore/facts`` of a checkpoint's index: compact JSON, version 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

VERSION = 1
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


def render(facts: Mapping[str, Any]) -> str:
    """The annotation's text."""
    return json.dumps(facts, separators=(",", ":"), sort_keys=True)


def compare(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> Comparison:
    """What of the checkpoint's node is other than on this one. Facts that one side does not know are not compared."""
    problems: dict[str, str] = {}
    warnings: list[str] = []
    architecture = str(recorded.get("architecture") or "")
    if architecture and architecture != here.get("architecture"):
        problems["architecture_differs"] = (
            f"The checkpoint was taken on {architecture}, and this node is {here.get('architecture')}."
        )
    else:
        lacking = _lacking(architecture, recorded, here)
        if lacking:
            problems[LACKING] = (
                f"This node's CPU lacks {', '.join(lacking)}, which the CPU of the checkpoint has: a program that uses "
                "them would crash, and CRIU refuses."
            )
    for key, what in (("kernel", "kernel"), ("criu", "CRIU"), ("cgroup", "cgroup mode")):
        _differs(warnings, what, recorded.get(key), here.get(key))
    was, now = _mapping(recorded, "runtime"), _mapping(here, "runtime")
    _differs(warnings, "runtime", was.get("version"), now.get("version"))
    gpu = _mapping(recorded, "gpu")
    if gpu:
        now = _mapping(here, "gpu")
        _differs(warnings, "NVIDIA driver", gpu.get("driver"), now.get("driver"))
    return Comparison(problems, tuple(warnings))


def _lacking(architecture: str, recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    was, now = _flags(recorded), _flags(here)
    if not was or not now:
        return []
    return sorted(set(features(architecture, was)) - set(now))


def _flags(facts: Mapping[str, Any]) -> list[str]:
    found = _mapping(facts, "cpu").get("features")
    return [str(flag) for flag in found] if isinstance(found, list) else []


def _mapping(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = facts.get(key)
    return found if isinstance(found, dict) else {}


def _differs(warnings: list[str], what: str, was: Any, now: Any) -> None:
    if was and now and was != now:
        warnings.append(f"The checkpoint was taken with {what} {was}; this node has {now}.")
