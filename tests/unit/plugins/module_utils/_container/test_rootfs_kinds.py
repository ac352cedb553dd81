# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a root file system has where something is mounted, told without mounting it."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._container import rootfs_kinds


class Mount(NamedTuple):
    """As containerd gives them."""

    type: str
    source: str
    options: list[str]


@pytest.fixture
def layers(tmp_path: pathlib.Path) -> list[Any]:
    """A writable layer above two others, as an overlay."""
    upper, middle, lowest = (tmp_path / name for name in ("upper", "middle", "lowest"))
    (upper / "data/volume").mkdir(parents=True)
    (upper / "conf").write_text("x")
    (middle / "etc").mkdir(parents=True)
    (middle / "etc/hosts").write_text("x")
    (middle / "link").symlink_to("etc")
    (lowest / "conf").mkdir(parents=True)
    options = ["index=off", f"workdir={tmp_path}/work", f"upperdir={upper}", f"lowerdir={middle}:{lowest}"]
    return [Mount("overlay", "overlay", options)]


def bind(destination: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": "/x", "options": ["rbind"]}


@pytest.mark.parametrize(
    ("destination", "kind"),
    [
        ("/data/volume", "directory"),
        ("/data/volume/", "directory"),
        ("/conf", "file"),  # the topmost layer wins
        ("/etc/hosts", "file"),
        ("/gone", None),
        ("/link", None),
        ("/link/hosts", None),
        ("/conf/below", None),
    ],
)
def test_kinds_in_an_overlay(layers: list[Any], destination: str, kind: str | None) -> None:
    found = rootfs_kinds.bind_kinds(layers, [bind(destination)])
    assert found.get(destination.rstrip("/")) == kind


def test_first_container_of_a_snapshot_without_parent(tmp_path: pathlib.Path) -> None:
    (tmp_path / "data").mkdir()
    assert rootfs_kinds.bind_kinds([Mount("bind", str(tmp_path), ["rbind"])], [bind("/data")]) == {"/data": "directory"}


def test_unknown_file_systems_tell_nothing() -> None:
    assert rootfs_kinds.bind_kinds([Mount("btrfs", "/dev/x", [])], [bind("/data")]) == {}


def test_what_another_mount_covers_is_not_told(layers: list[Any]) -> None:
    tmpfs = {"destination": "/data", "type": "tmpfs", "source": "tmpfs"}
    assert rootfs_kinds.bind_kinds(layers, [tmpfs, bind("/data/volume")]) == {}
    assert rootfs_kinds.bind_kinds(layers, [{**tmpfs, "destination": "/data/volume"}]) == {}
