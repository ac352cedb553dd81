# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host has, and how a container gets it: folders to mount, device nodes, environment."""

from __future__ import annotations

import dataclasses
import glob
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

DEFAULT_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib", "/lib", "/usr/lib64", "/lib64")
TOP_LINKS = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
DRIVER_IN_CONTAINER = "/gpuops/driver"
WORK_IN_CONTAINER = "/gpuops/work"
SITE_IN_CONTAINER = "/gpuops/site"
PROGRAMS_IN_CONTAINER = "/gpuops/workloads"

# Where the loader finds the driver is what its own mapping says.
FIND_DRIVER = """
import ctypes
ctypes.CDLL("libcuda.so.1")
print([line.split()[-1] for line in open("/proc/self/maps") if "libcuda.so" in line][0])
"""
DESCRIBE_PYTHON = """
import json, os, sys
found = {"executable": sys.executable, "prefix": sys.prefix, "base": sys.base_prefix, "version": sys.version.split()[0]}
try:
    import torch
    found["torch"] = torch.__version__
    found["torch_folder"] = os.path.dirname(os.path.dirname(torch.__file__))
except ImportError as error:
    found["no_torch"] = str(error)
print(json.dumps(found))
"""


@dataclasses.dataclass(frozen=True)
class Mount:
    """A folder of the host in the container; ``source`` is no symbolic link, for CRIU cannot restore such a mount."""

    source: str
    target: str
    writable: bool = False


def describe_python(python: str) -> dict[str, Any]:
    """Executable, prefixes, and PyTorch's version; without the bundle's packages on the path."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run(
        [python, "-c", DESCRIBE_PYTHON],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment,
    )
    return dict(json.loads(result.stdout.splitlines()[-1]))


def driver_folder() -> str:
    """The folder that libcuda.so.1 lies in, empty without a driver."""
    result = subprocess.run(
        [sys.executable, "-c", FIND_DRIVER], capture_output=True, text=True, timeout=60, check=False
    )
    return os.path.dirname(result.stdout.strip()) if result.returncode == 0 else ""


def devices() -> list[str]:
    """The driver's device nodes, but not those of MIG."""
    found = [path for path in glob.glob("/dev/nvidia[0-9]*") if path[len("/dev/nvidia") :].isdigit()]
    others = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
    return sorted(found) + [path for path in others if os.path.exists(path)]


def python_folders(python: dict[str, Any]) -> list[str]:
    """Folders that this Python needs: its prefixes, and what its executable's links lead through."""
    found = [python["prefix"], python["base"]]
    if "torch_folder" in python:
        found.append(python["torch_folder"])
    path = python["executable"]
    for _ in range(16):
        found.append(os.path.dirname(path))
        if not os.path.islink(path):
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    return found


def mounts(folders: list[str]) -> list[Mount]:
    """/usr and the folders, none within another; a folder that links lead to is there under both names."""
    wanted = {"/usr"}
    for folder in folders:
        wanted |= {os.path.normpath(folder), os.path.realpath(folder)}
    kept: list[str] = []
    for folder in sorted(wanted, key=len):
        top = "/" + folder.strip("/").split("/")[0]
        inside = any((folder + "/").startswith(f"{other}/") for other in kept)
        # /bin, /lib and so on are links into /usr in the container too.
        if not inside and not (top.strip("/") in TOP_LINKS and os.path.islink(top)):
            kept.append(folder)
    return [Mount(os.path.realpath(folder), folder) for folder in kept]


def mount_points() -> set[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        return {line.split()[4] for line in stream}


def driver_mount(folder: str, others: list[Mount]) -> Mount | None:
    """None when the driver lies within the other mounts; one of its own is a mount of its own, never nested."""
    points = mount_points()
    for other in others:
        if (folder + "/").startswith(f"{other.source}/"):
            parts = pathlib.PurePath(folder)
            between = [str(part) for part in (parts, *parts.parents) if str(part).startswith(f"{other.source}/")]
            if not points.intersection(between):
                return None
    return Mount(os.path.realpath(folder), DRIVER_IN_CONTAINER)


def library_path(folder: str, mount: Mount | None) -> str:
    """LD_LIBRARY_PATH in the container; empty where the loader looks anyway."""
    if mount:
        return mount.target
    return "" if not folder or folder in DEFAULT_LIBRARIES else folder


def facts() -> dict[str, Any]:
    """Machine, kernel, and the versions of the Python packages in use."""
    release = {}
    if os.path.exists("/etc/os-release"):
        with open("/etc/os-release", encoding="utf-8") as stream:
            release = dict(line.rstrip("\n").split("=", 1) for line in stream if "=" in line)
    pages = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    found = {
        "system": release.get("PRETTY_NAME", "").strip('"'),
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "cgroup": "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1 or hybrid",
        "transparent_huge_pages": pages.read_text().strip() if pages.exists() else "",
        "python": platform.python_version(),
    }
    for package in ("ansible-core", "cuda-bindings", "nvidia-ml-py", "grpcio", "protobuf"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found
