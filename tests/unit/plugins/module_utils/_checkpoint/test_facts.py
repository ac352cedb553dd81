# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import facts

FACTS: dict[str, Any] = {
    "version": 1,
    "architecture": "x86_64",
    "kernel": "6.12.1",
    "criu": "4.1",
    "cgroup": "v2",
    "runtime": {"name": "io.containerd.runc.v2", "version": "1.1.15"},
    "cpu": {"model": "One", "features": ["sse2", "avx2", "avx512f", "amx_tile"]},
    "gpu": {"driver": "580.1"},
}


def compare(**here: Any) -> facts.Comparison:
    return facts.compare(FACTS, {**FACTS, **here})


def test_the_same_node_is_fine() -> None:
    assert compare() == facts.Comparison()


def test_what_the_cpu_lacks_is_named() -> None:
    found = compare(cpu={"model": "Two", "features": ["avx2", "sse2", "more"]})
    assert list(found.problems) == [facts.LACKING]
    assert "amx_tile, avx512f" in found.problems[facts.LACKING]
    assert compare(cpu={"features": [*FACTS["cpu"]["features"], "more"]}).problems == {}


def test_flags_that_no_program_sees_do_not_count() -> None:
    flags = ["avx2", "hypervisor", "vmx", "md_clear", "avx512vnni", "constant_tsc"]
    assert facts.features("x86_64", flags) == ["avx2", "avx512vnni"]
    assert facts.features("aarch64", ["sve", "fp", "sve"]) == ["fp", "sve"]


def test_another_architecture_is_the_only_problem() -> None:
    assert list(compare(architecture="aarch64", cpu={"features": []}).problems) == ["architecture_differs"]


@pytest.mark.parametrize(
    ("here", "word"),
    [
        ({"kernel": "6.1"}, "kernel 6.12.1"),
        ({"criu": "3.17"}, "CRIU 4.1"),
        ({"cgroup": "v1"}, "cgroup mode v2"),
        ({"runtime": {"version": "1.2"}}, "runtime 1.1.15"),
        ({"gpu": {"driver": "570"}}, "NVIDIA driver 580.1"),
    ],
)
def test_what_may_matter_is_a_warning(here: dict[str, Any], word: str) -> None:
    found = compare(**here)
    assert found.problems == {}
    (warning,) = found.warnings
    assert word in warning


@pytest.mark.parametrize("key", [key for key in FACTS if key != "architecture"])
@pytest.mark.parametrize("value", [None, "", [], {}])
def test_what_one_side_does_not_know_is_not_compared(key: str, value: Any) -> None:
    for recorded, here in (({**FACTS, key: value}, FACTS), (FACTS, {**FACTS, key: value})):
        assert facts.compare(recorded, here) == facts.Comparison()


@pytest.mark.parametrize("strange", [{"cpu": 7}, {"cpu": {"features": "avx"}}, {"runtime": []}, {"gpu": "yes"}])
def test_strange_facts_break_nothing(strange: dict[str, Any]) -> None:
    facts.compare({**FACTS, **strange}, FACTS)
    facts.compare(FACTS, {**FACTS, **strange})


def test_the_annotation_is_one_line_of_json() -> None:
    text = facts.render(FACTS)
    assert json.loads(text) == FACTS
    assert "\n" not in text and ": " not in text
