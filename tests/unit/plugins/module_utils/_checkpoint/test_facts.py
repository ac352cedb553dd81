# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import facts
from ansible_collections.gpuops.restore.plugins.module_utils._oci.facts import (
    CardFacts,
    Facts,
    GpuFacts,
    ProcessFacts,
)

RECORDED = Facts(
    kernel="6.12.1",
    architecture="x86_64",
    cpu_model="One",
    cpu_features=("sse2", "avx2", "avx512f", "amx_tile"),
    runtime="io.containerd.runc.v2",
    runtime_version="1.1.15",
    criu="4.1",
    cgroup="v2",
    gpu=GpuFacts(driver="580.1"),
)
X86 = """processor	: 0
model name	: Some CPU @ 2.00GHz
flags		: fpu sse2 hypervisor avx2

processor	: 1
model name	: Another
flags		: fpu
"""
ARM = """processor	: 0
Features	: fp asimd sve
CPU implementer	: 0x41
"""


def compare(**here: Any) -> facts.Comparison:
    return facts.compare(RECORDED, replace(RECORDED, **here))


def test_the_same_node_is_fine() -> None:
    assert compare() == facts.Comparison()


def test_what_the_cpu_lacks_is_named() -> None:
    found = compare(cpu_model="Two", cpu_features=("avx2", "sse2", "more"))
    assert list(found.problems) == [facts.LACKING]
    assert "amx_tile, avx512f" in found.problems[facts.LACKING]
    assert compare(cpu_features=(*RECORDED.cpu_features, "more")).problems == {}


def test_flags_that_no_program_sees_do_not_count() -> None:
    flags = ["avx2", "hypervisor", "vmx", "md_clear", "avx512vnni", "constant_tsc"]
    assert facts.features("x86_64", flags) == ["avx2", "avx512vnni"]
    assert facts.features("aarch64", ["sve", "fp", "sve"]) == ["fp", "sve"]
    recorded = replace(RECORDED, cpu_features=tuple(flags))
    assert facts.compare(recorded, replace(RECORDED, cpu_features=("avx2", "avx512vnni"))) == facts.Comparison()


def test_another_architecture_is_the_only_problem() -> None:
    assert list(compare(architecture="aarch64", cpu_features=()).problems) == ["architecture_differs"]


@pytest.mark.parametrize(
    ("here", "word"),
    [
        ({"kernel": "6.1"}, "kernel 6.12.1"),
        ({"criu": "3.17"}, "CRIU 4.1"),
        ({"cgroup": "v1"}, "cgroup mode v2"),
        ({"runtime_version": "1.2"}, "runtime 1.1.15"),
        ({"gpu": GpuFacts(driver="570")}, "NVIDIA driver 580.1"),
    ],
)
def test_what_may_matter_is_a_warning(here: dict[str, Any], word: str) -> None:
    found = compare(**here)
    assert found.problems == {}
    (warning,) = found.warnings
    assert word in warning


@pytest.mark.parametrize(
    "unknown",
    [
        {"kernel": ""},
        {"cpu_features": ()},
        {"runtime_version": ""},
        {"criu": ""},
        {"cgroup": None},
        {"gpu": None},
        {"gpu": GpuFacts()},
    ],
)
def test_what_one_side_does_not_know_is_not_compared(unknown: dict[str, Any]) -> None:
    less = replace(RECORDED, **unknown)
    other = replace(RECORDED, **{"kernel": "6.12.1", **unknown})
    assert facts.compare(less, RECORDED) == facts.compare(RECORDED, other) == facts.Comparison()


def test_an_architecture_that_nobody_recorded_is_no_problem() -> None:
    assert facts.compare(replace(RECORDED, architecture=""), RECORDED).problems == {}


def test_the_first_cpu_counts(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(X86, encoding="utf-8")
    assert facts.cpu("x86_64", str(path)) == ("Some CPU @ 2.00GHz", ("avx2", "fpu", "sse2"))
    path.write_text(ARM, encoding="utf-8")
    assert facts.cpu("aarch64", str(path)) == ("0x41", ("asimd", "fp", "sve"))


def test_a_node_without_programs_has_no_versions(tmp_path: Path) -> None:
    found = facts.node(str(tmp_path), "io.containerd.runc.v2")
    assert (found.criu, found.runtime, found.runtime_version) == ("", "io.containerd.runc.v2", "")
    assert found.kernel and found.architecture


@pytest.mark.parametrize("told", [True, False])
def test_the_gpus_part(tmp_path: Path, told: bool) -> None:
    gpus = [{"uuid": "GPU-1", "index": 0, "name": "One", "memory": 5}]
    info = {
        "driver": {"version": "580.1", "cuda": "13.0"},
        "processes": [
            {"pid": 41, "memory": 5, "gpus": gpus, "visible": ["GPU-1", "GPU-2"]},
            {"pid": 42, "memory": None, "gpus": [], "visible": ["GPU-1"]},
        ],
        "nvml": {"available": told},
    }
    (tmp_path / "41").mkdir()
    (tmp_path / "41/status").write_text("Name:\ttrain\nNSpid:\t41\t7\n", encoding="ascii")
    assert facts.gpu(info, str(tmp_path)) == GpuFacts(
        driver="580.1",
        cuda="13.0",
        cards=(CardFacts("GPU-1", 0, "One"),),
        visible=("GPU-1", "GPU-2"),
        processes=(ProcessFacts(5, {"GPU-1": 5}, 7), ProcessFacts(0 if told else None, {})),
    )
    assert facts.gpu({"processes": []}) is None
