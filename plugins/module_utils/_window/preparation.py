# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node needs before anything can be planned on it: packages that go with its driver, programs, a containerd."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

#: The first driver of CUDA 13; bindings of CUDA 13 do not go with an older one.
_CUDA_13_DRIVER = 580
#: The bindings for older drivers that can checkpoint (570), as requirements/gpu-570.txt has them.
BINDINGS_12 = "cuda-bindings==12.9.2"
_BINDINGS_13 = re.compile(r"cuda-bindings *== *1[3-9]\.")
_NUMBER = re.compile(r"[0-9]+")
#: CRIU as old as this can restore, the first kernel on which sockets need a newer one, and that one.
_OLDEST_CRIU, _SOCKETS_KERNEL, _SOCKETS_CRIU = (3, 17), (6, 16), (4, 2)
_PROGRAMS = {
    "criu": "criu (3.17 or newer)",
    "runtime": "runc",
    "iptables_restore": "iptables, which CRIU locks the network with",
}


_WHEELS = (
    "Where the node reaches no package index, restore_node_wheelhouse names a directory of wheels for its Python, "
    "which make wheelhouse fills."
)
#: What venv, pip and the shell say, what it means, and what to do.
_VENV_FAILURES = (
    (
        r"ensurepip is not|No module named '?(venv|ensurepip)",
        "{what} has no venv module",
        "Install it, python3-venv on Debian and Ubuntu; prepare_packages does so.",
    ),
    (
        r"THESE PACKAGES DO NOT MATCH THE HASHES",
        "a package is not the file that the collection knows by its hash",
        "Fill the wheelhouse from the index of PyPI, or make the environment yourself and set "
        "restore_node_dependency_source to none.",
    ),
    (
        r"No matching distribution found for (?P<what>[^\s(;]+)",
        "neither the index nor the wheelhouse has {what} for the node's Python",
        _WHEELS,
    ),
    (r"No space left on device", "the disk is full", "Make room, or choose another restore_node_venv_path."),
    (
        r"(?P<what>[^\s:]+): (?:\d+: )?(?:not found|No such file or directory)$",
        "the node has no {what}",
        "Install Python 3.9 or newer, or name its path in restore_node_python.",
    ),
)


def requirements(wanted: Sequence[str], driver: str) -> list[str]:
    """The packages for a node with that driver, as ``/sys/module/nvidia/version`` has it; "" where it is not known."""
    numbers = _version(driver)
    if not numbers or numbers[0] >= _CUDA_13_DRIVER:
        return list(wanted)
    others = [one for one in wanted if not _BINDINGS_13.match(one)]
    return others if len(others) == len(wanted) else [BINDINGS_12, *others]


def installs(texts: Mapping[str, str], wanted: Sequence[str], driver: str, gpu: bool) -> tuple[str, list[str]]:
    """What a venv gets: a requirements file with hashes, and requirements without, which an operator has chosen.

    ``texts``: the files of the collection's ``requirements`` by name; ``wanted``: the packages for the GPU, of which
    only those that the collection itself asks for have hashes; ``gpu``: whether the node is to have any.
    """
    if not gpu:
        return texts["node.txt"], []
    pinned = [line.strip() for line in texts["gpu.in"].splitlines() if line.strip() and not line.startswith("#")]
    if list(wanted) != pinned:
        return texts["node.txt"], requirements(wanted, driver)
    name = "gpu.txt" if requirements(wanted, driver) == pinned else "gpu-570.txt"
    return "\n".join((texts["node.txt"], texts[name])), []


def venv_problem(output: str, python: str, path: str) -> str:
    """Why the venv at ``path`` could not be made of the interpreter ``python``, by what its programs have said."""
    begin = f"The venv {path} could not be made: "
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for pattern, cause, remedy in _VENV_FAILURES:
        for line in lines:
            match = re.search(pattern, line)
            if match:
                found = match.groupdict().get("what") or python
                return begin + f"{cause.format(what=found)}. {remedy}"
    errors = [line for line in lines if line.startswith("ERROR: ")] or lines
    return begin + (errors[-1].removeprefix("ERROR: ").rstrip(".") if errors else "its programs did not say why") + "."


def problems(info: Any, gpu: Any) -> list[str]:
    """What the node lacks, each a sentence with its remedy.

    ``info``: the answer of ``containerd_info``; ``gpu``: that of ``cuda_process_info``, {} on a node without a driver.
    """
    if not isinstance(info, Mapping) or "containerd" not in info:
        message = info.get("msg") if isinstance(info, Mapping) else None
        return [str(message or "containerd_info did not run; -vvv shows why.")]
    found = []
    for key, package in _PROGRAMS.items():
        program = info.get(key) or {}
        if not program.get("present"):
            found.append(
                f"containerd finds no {key.replace('_', '-') if key != 'runtime' else 'runc'} on its PATH. Install "
                f"{package}; prepare_packages does so from the distribution."
            )
    criu, kernel = _version((info.get("criu") or {}).get("version")), _version(info.get("kernel"))
    if criu and criu[:2] < _OLDEST_CRIU:
        found.append(f"CRIU {_text(criu)} is too old. Install CRIU 3.17 or newer.")
    elif criu and kernel[:2] >= _SOCKETS_KERNEL and criu[:2] < _SOCKETS_CRIU:
        found.append(
            f"CRIU {_text(criu)} can dump no process with a TCP or UDP socket on Linux {_text(kernel)}. Install CRIU "
            "4.2 or newer."
        )
    if info.get("cri_ok") is False:
        found.append("containerd's CRI plugin does not work. See containerd's log.")
    if isinstance(gpu, Mapping) and gpu and not gpu.get("available"):
        why = gpu.get("reason") or gpu.get("msg") or "cuda_process_info did not run"
        found.append(f"GPU memory can be neither captured nor restored: {why}")
    return found


def _version(text: Any) -> tuple[int, ...]:
    match = re.match(r"[0-9]+(\.[0-9]+)*", str(text or "").strip())
    return tuple(int(part) for part in _NUMBER.findall(match.group(0))) if match else ()


def _text(version: Sequence[int]) -> str:
    return ".".join(str(part) for part in version)
