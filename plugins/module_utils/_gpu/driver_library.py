# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the NVIDIA driver's libraries are, how a helper process finds them, and whether it has bindings for them.

Facts: NVIDIA's GPU Operator puts the root of its driver container at /run/nvidia/driver; other places (an immutable
host's own directory) are named by ``driver_root``. Such a root is a whole distribution with a C library of its own:
its directory on LD_LIBRARY_PATH would make our Python load a foreign libc. So only the driver's own libraries are
linked into a directory made for the purpose.

The bindings are only ever imported by helper processes (:mod:`_core.helper_process`): a driver that hangs must not take
the module along, and its library may have to be found in a place that only a fresh process can be told of.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from .._core.errors import NodeError

CUDA = "libcuda.so.1"
DRIVER_CONTAINER = "/run/nvidia/driver"
_OURS = ("libcuda.so*", "libnvidia-*.so*", "libcudadebugger.so*")
# They would change what the driver shows to our helper, which has to see all of the node.
_HIDING = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_INJECTION64_PATH")


@dataclass(frozen=True)
class Place:
    """Where to look: ``directory`` on the node, or None for the loader's own path."""

    directory: str | None = None

    def __str__(self) -> str:
        return self.directory or "the loader's default path"


def has_cuda() -> bool:
    """Whether cuda-bindings is installed (by itself or as a part of cuda-python)."""
    return _is_installed("cuda.bindings")


def has_nvml() -> bool:
    """Whether nvidia-ml-py is installed."""
    return _is_installed("pynvml")


def require_cuda() -> None:
    """Raise NodeError ``dependency_missing`` unless cuda-bindings is there to be imported by a helper process."""
    if not has_cuda():
        raise NodeError(
            "dependency_missing",
            f"{sys.executable} on this node cannot import cuda.bindings.driver.",
            "Set restore_node_dependency_source to venv, or install cuda-bindings 12.8 or later for it.",
            details={"missing": ["cuda-bindings"]},
        )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        # The package above it is missing.
        return False


def places(driver_root: str = "", fallback: str = DRIVER_CONTAINER) -> list[Place]:
    """Where to try, in order. A ``driver_root`` that is given is the only one.

    Raises NodeError ``driver_root_invalid`` when it holds no ``libcuda.so.1``.
    """
    if driver_root:
        found = _directory(driver_root)
        if found is None:
            raise NodeError(
                "driver_root_invalid",
                f"There is no {CUDA} below driver_root {driver_root} ({', '.join(_subdirectories())}).",
                "Name the root directory of the driver's installation, or leave driver_root out.",
                details={"driver_root": driver_root},
            )
        return [Place(found)]
    found = _directory(fallback)
    return [Place(), Place(found)] if found else [Place()]


@contextlib.contextmanager
def environment(place: Place) -> Iterator[dict[str, str]]:
    """The environment for a helper that is to load the libraries from ``place``; it lasts as long as the block."""
    variables = {name: value for name, value in os.environ.items() if name not in _HIDING}
    if place.directory is None:
        yield variables
        return
    with tempfile.TemporaryDirectory(prefix="gpuops-driver-") as links:
        for name in sorted(os.listdir(place.directory)):
            if any(fnmatch.fnmatch(name, pattern) for pattern in _OURS):
                os.symlink(_target(place.directory, name), os.path.join(links, name))
        inherited = variables.get("LD_LIBRARY_PATH")
        variables["LD_LIBRARY_PATH"] = f"{links}:{inherited}" if inherited else links
        yield variables


def _subdirectories() -> list[str]:
    machine = os.uname().machine
    tuples = [f"usr/lib/{machine}-linux-gnu", "usr/lib64", "usr/lib", f"lib/{machine}-linux-gnu", "lib64", "lib"]
    return [*tuples, "usr/local/nvidia/lib64", "."]


def _directory(root: str) -> str | None:
    for below in _subdirectories():
        directory = os.path.normpath(os.path.join(root, below))
        # The name is enough: a link in it may be absolute, and then points into the root, not to our own files.
        if os.path.lexists(os.path.join(directory, CUDA)):
            return directory
    return None


def _target(directory: str, name: str) -> str:
    """What a link in a root stands for; absolute links are seen from within that root."""
    path = os.path.join(directory, name)
    with contextlib.suppress(OSError):
        link = os.readlink(path)
        if os.path.isabs(link):
            beside = os.path.join(directory, os.path.basename(link))
            return beside if os.path.lexists(beside) else link
    return path
