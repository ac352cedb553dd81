# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._container import driver_files

DEBIAN = "/usr/lib/x86_64-linux-gnu"
CUDA = f"{DEBIAN}/libcuda.so.580.159.04"


def bind(source: str) -> dict[str, Any]:
    return {"destination": "/x", "type": "bind", "source": source, "options": ["rbind"]}


def found(source: str, here: Collection[str], version: str = "", **given: str) -> dict[str, str]:
    def listdir(folder: str) -> list[str]:
        names = [path.rpartition("/")[2] for path in here if path.rpartition("/")[0] == folder]
        if not names:
            raise FileNotFoundError(folder)
        return sorted(names)

    def realpath(path: str) -> str:
        return f"/usr{path}" if path.startswith("/lib/") else path

    node = driver_files.Node(set(here).__contains__, realpath, listdir, lambda: version)
    return driver_files.mapping({"mounts": [bind(source), {"destination": "/proc"}]}, given, node)


@pytest.mark.parametrize(
    ("source", "here", "version", "path"),
    [
        # The same release elsewhere: another distribution's folder, a driver container, Google's images.
        (CUDA, ["/usr/lib64/libcuda.so.580.159.04"], "", "/usr/lib64/libcuda.so.580.159.04"),
        (CUDA, [f"/run/nvidia/driver{CUDA}"], "580.159.04", f"/run/nvidia/driver{CUDA}"),
        ("/usr/bin/nvidia-smi", ["/run/nvidia/driver/usr/bin/nvidia-smi"], "", "/run/nvidia/driver/usr/bin/nvidia-smi"),
        # Another release: the loaded one of several, the only one.
        (
            CUDA,
            [f"{DEBIAN}/libcuda.so.1", f"{DEBIAN}/libcuda.so.550.1", f"{DEBIAN}/libcuda.so.570.86.10"],
            "570.86.10",
            f"{DEBIAN}/libcuda.so.570.86.10",
        ),
        (CUDA, [f"{DEBIAN}/libcuda.so", f"{DEBIAN}/libcuda.so.570.86.10"], "", f"{DEBIAN}/libcuda.so.570.86.10"),
        (f"{DEBIAN}/libnvidia-ml.so.1.2", ["/usr/lib64/libnvidia-ml.so.3.4"], "", "/usr/lib64/libnvidia-ml.so.3.4"),
        (
            "/lib/firmware/nvidia/580.159.04/gsp_ga10x.bin",
            ["/lib/firmware/nvidia/570.86.10/gsp_ga10x.bin"],
            "570.86.10",
            "/usr/lib/firmware/nvidia/570.86.10/gsp_ga10x.bin",
        ),
    ],
)
def test_where_this_node_has_it(source: str, here: list[str], version: str, path: str) -> None:
    assert found(source, here, version) == {source: path}


@pytest.mark.parametrize(
    ("source", "here"),
    [
        (CUDA, [CUDA, "/usr/lib64/libcuda.so.580.159.04"]),
        (CUDA, [f"{DEBIAN}/libcuda.so.1.1", f"{DEBIAN}/libcuda.so.2.2"]),
        (CUDA, [f"{DEBIAN}/libcudart.so.580.159.04"]),
        ("/srv/libdata.so.1.2", ["/usr/lib/libdata.so.1.2"]),
        ("/srv/model.bin", ["/usr/bin/model.bin"]),
        ("/usr/bin/passwd", ["/usr/sbin/passwd"]),
    ],
)
def test_what_is_there_is_unclear_or_is_no_drivers_is_left(source: str, here: list[str]) -> None:
    assert found(source, here) == {}


def test_the_operators_mapping_counts() -> None:
    here = ["/usr/lib64/libcuda.so.580.159.04"]
    assert found(CUDA, here, **{DEBIAN: "/srv/driver"}) == {}
    assert found(CUDA, here, **{CUDA: "/srv/libcuda"}) == {}
    assert found(CUDA, here, **{f"{DEBIAN}/libc": "/srv"}) != {}
