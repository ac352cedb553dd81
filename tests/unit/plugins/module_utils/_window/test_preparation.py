# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from ansible_collections.gpuops.restore.plugins.filter.node_problems import node_problems
from ansible_collections.gpuops.restore.plugins.filter.venv_problem import venv_problem
from ansible_collections.gpuops.restore.plugins.filter.venv_requirements import venv_requirements
from ansible_collections.gpuops.restore.plugins.module_utils._window import preparation

#: Of the collection.
TREE = Path(str(preparation.__file__)).parents[3]
INFO: dict[str, Any] = {
    "containerd": {"version": "1.7.24"},
    "criu": {"present": True, "version": "4.2"},
    "runtime": {"present": True, "version": "1.1.15"},
    "iptables_restore": {"present": True},
    "kernel": "6.18.4-amd64",
    "cri_ok": True,
}


#: Of a node; 3.14 has zstd of its own.
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
NAMES = ("node", "gpu", "gpu-570")


def text(name: str) -> str:
    return (TREE / "requirements" / name).read_text(encoding="utf-8")


def lines(name: str) -> list[str]:
    return [line for line in text(f"{name}.in").splitlines() if line and not line.startswith("#")]


def pins(content: str, python: str) -> dict[str, str]:
    """Name and version of what that file has for that Python; each has one version."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, str] = {}
    for line in content.replace("\\\n", " ").splitlines():
        wanted = line.partition("#")[0].partition("--hash")[0].strip()
        if not wanted:
            continue
        requirement = Requirement(wanted)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (exact,) = requirement.specifier
            name = requirement.name.lower().replace(".", "-")
            assert exact.operator == "==" and name not in found
            found[name] = exact.version
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_is_installed_is_what_was_chosen_with_hashes_of_all(name: str) -> None:
    installed = text(f"{name}.txt")
    for block in installed.replace("\\\n", " ").splitlines():
        assert block.startswith("#") or re.search(r"--hash=sha256:[0-9a-f]{64}\b", block), block[:80]
    for python in PYTHONS:
        chosen, found = pins(text(f"{name}.in"), python), pins(installed, python)
        assert chosen.items() <= found.items()
        assert set(found) - set(chosen) <= {"typing-extensions", "cuda-pathfinder"}


def test_the_tests_on_a_card_install_the_same() -> None:
    bundled = (TREE / "tests" / "gpu" / "requirements.txt").read_text(encoding="utf-8")
    wanted = {**pins(text("node.txt"), "3.12"), **pins(text("gpu.txt"), "3.12")}
    # There, the node's program reads zstd.
    del wanted["backports-zstd"]
    assert wanted.items() <= pins(bundled, "3.12").items()


def test_the_role_asks_for_what_the_files_have() -> None:
    default = yaml.safe_load((TREE / "roles" / "restore_node" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    assert default["restore_node_gpu_requirements"] == lines("gpu")
    assert preparation.requirements(lines("gpu"), "570.211.01\n") == lines("gpu-570")


@pytest.mark.parametrize("driver", ["", "580.159.04\n", "610.10", "open"])
def test_newer_and_unknown_drivers_have_what_is_wanted(driver: str) -> None:
    found = venv_requirements(lines("gpu"), driver, True)
    assert found == {"hashed": text("node.txt") + "\n" + text("gpu.txt"), "others": []}


def test_an_older_driver_has_bindings_that_go_with_it() -> None:
    found = venv_requirements(lines("gpu"), "570.211.01\n", True)
    assert found == {"hashed": text("node.txt") + "\n" + text("gpu-570.txt"), "others": []}


def test_a_node_without_a_gpu_has_none_of_its_packages() -> None:
    assert venv_requirements(lines("gpu"), "", False) == {"hashed": text("node.txt"), "others": []}


@pytest.mark.parametrize(
    ("wanted", "driver", "others"),
    [
        (["cuda-bindings==12.8.0"], "570.1", ["cuda-bindings==12.8.0"]),
        (["cuda-bindings==13.0.1", "x"], "570.1", [preparation.BINDINGS_12, "x"]),
        (["cuda-bindings==13.0.1", "x"], "580.1", ["cuda-bindings==13.0.1", "x"]),
        ([], "580.1", []),
    ],
)
def test_what_an_operator_has_chosen_has_no_hashes(wanted: list[str], driver: str, others: list[str]) -> None:
    assert venv_requirements(wanted, driver, True) == {"hashed": text("node.txt"), "others": others}


@pytest.mark.parametrize(
    ("output", "parts"),
    [
        (
            "The virtual environment was not created successfully because ensurepip is not\navailable.  On Debian",
            ("/usr/bin/python3 has no venv module", "python3-venv"),
        ),
        ("/usr/bin/python3: No module named venv", ("has no venv module", "prepare_packages")),
        (
            "WARNING: Retrying\nERROR: Could not find a version that satisfies the requirement grpcio==1.85.1 (from "
            "versions: none)\nERROR: No matching distribution found for grpcio==1.85.1",
            ("has grpcio==1.85.1 for the node's Python", "restore_node_wheelhouse"),
        ),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", ("by its hash", "PyPI")),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", ("disk is full", "Make room")),
        ("/bin/sh: 2: /opt/python3: not found", ("the node has no /opt/python3", "restore_node_python")),
        ("ERROR: one\nERROR: another thing.\nthe end", ("could not be made: another thing.",)),
        ("", ("did not say why",)),
    ],
)
def test_a_venv_that_could_not_be_made_has_a_reason(output: str, parts: tuple[str, ...]) -> None:
    found = venv_problem(output, "/usr/bin/python3", "/opt/venv")
    assert found.startswith("The venv /opt/venv could not be made: ") and found.endswith(".") and ".." not in found
    assert all(part in found for part in parts)


def test_a_node_with_everything_lacks_nothing() -> None:
    assert node_problems(INFO, {}) == []
    assert node_problems(INFO, {"available": True}) == []


@pytest.mark.parametrize(
    ("change", "gpu", "part"),
    [
        ({"criu": {"present": False}}, {}, "no criu"),
        ({"runtime": {"present": False}}, {}, "no runc"),
        ({"iptables_restore": None}, {}, "no iptables-restore"),
        ({"criu": {"present": True, "version": "3.16.1"}}, {}, "3.16.1 is too old"),
        ({"criu": {"present": True, "version": "4.1.1"}}, {}, "no process with a TCP or UDP socket on Linux 6.18.4"),
        ({"cri_ok": False}, {}, "CRI plugin"),
        ({}, {"available": False, "reason": "the driver is 550"}, "neither captured nor restored: the driver is 550"),
        ({}, {"failed": True, "msg": "no Python"}, "no Python"),
    ],
)
def test_what_lacks_is_told(change: dict[str, Any], gpu: dict[str, Any], part: str) -> None:
    (line,) = node_problems({**INFO, **change}, gpu)
    assert part in line


def test_an_old_criu_will_do_on_an_older_kernel() -> None:
    older = {**INFO, "criu": {"present": True, "version": "3.17"}, "kernel": "6.1.0-30-amd64"}
    assert node_problems(older, {}) == []


@pytest.mark.parametrize("answer", [{"failed": True, "msg": "There is no socket."}, {}, None])
def test_a_node_that_gives_no_answer(answer: Any) -> None:
    (line,) = node_problems(answer, {})
    assert line in ("There is no socket.", "containerd_info did not run; -vvv shows why.")
