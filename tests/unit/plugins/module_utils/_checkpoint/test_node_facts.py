# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import node_facts

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


def test_the_first_cpu_counts(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(X86, encoding="utf-8")
    found = node_facts.cpu("x86_64", str(path))
    assert found == {"model": "Some CPU @ 2.00GHz", "features": ["avx2", "fpu", "sse2"]}
    path.write_text(ARM, encoding="utf-8")
    assert node_facts.cpu("aarch64", str(path)) == {"model": "0x41", "features": ["asimd", "fp", "sve"]}


def test_a_node_without_programs_has_no_versions(tmp_path: Path) -> None:
    found = node_facts.node(str(tmp_path), "io.containerd.runc.v2")
    assert (found["criu"], found["runtime"]) == ("", {"name": "io.containerd.runc.v2", "version": ""})
    assert found["kernel"] and found["architecture"]


def test_memory_that_was_swapped_out_is_dumped_too(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(
        "Name:	x\nRssAnon:	100 kB\nRssFile:	900 kB\nRssShmem:	20 kB\nVmSwap:	3 kB\n", encoding="ascii"
    )
    assert node_facts.memory_bytes([7, 8], str(tmp_path)) == 123 * 1024


def test_the_gpus_part() -> None:
    gpus = [{"uuid": "GPU-1", "index": 0, "name": "One", "memory": 5}]
    info = {
        "driver": {"version": "580.1", "cuda": "13.0"},
        "processes": [
            {"memory": 5, "gpus": gpus, "visible": ["GPU-1", "GPU-2"]},
            {"memory": None, "gpus": [], "visible": ["GPU-1"]},
        ],
    }
    assert node_facts.gpu(info) == {
        "driver": "580.1",
        "cuda": "13.0",
        "gpus": [{"uuid": "GPU-1", "index": 0, "name": "One"}],
        "visible": ["GPU-1", "GPU-2"],
        "processes": [{"bytes": 5, "gpus": {"GPU-1": 5}}, {"bytes": None, "gpus": {}}],
    }
    assert node_facts.gpu({"processes": []}) is None
