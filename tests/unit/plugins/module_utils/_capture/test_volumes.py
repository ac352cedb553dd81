# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import volumes
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.volumes import MemoryVolume
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import containers
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.containers import Container
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, PAUSED, RUNNING, STOPPED, record
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Task

PID = 7
SHM, CACHE, SECRET, DATA, NODES, FILE = "/dev/shm", "/cache", "/secret", "/data", "/nodes", "/etc/hosts"
AUTO = ("auto",)


def bind(destination: str, source: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind"]}


def container(*more: dict[str, Any]) -> Container:
    mounts = [
        *(bind(path, f"/pod{path}") for path in (SHM, CACHE, SECRET, DATA, NODES, FILE)),
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        *more,
    ]
    return Container(BOX, "", {}, "", None, {"mounts": mounts}, "overlayfs", BOX)


@pytest.fixture
def proc(tmp_path: Path) -> str:
    """A process with all kinds of mounts; of the node's own there is the device of /dev."""
    own = os.stat("/dev").st_dev
    lines = [
        "1 0 0:50 / / rw - overlay overlay rw",
        f"2 1 0:901 / {SHM} rw,nosuid,nodev - tmpfs shm rw,size=65536k",
        f"3 1 0:902 /sub {CACHE} rw,noexec - tmpfs tmpfs rw",
        f"4 1 0:903 / {SECRET} ro - tmpfs tmpfs rw",
        f"5 1 8:1 /srv {DATA} rw - ext4 /dev/sda1 rw",
        f"6 1 {os.major(own)}:{os.minor(own)} / {NODES} rw - tmpfs tmpfs rw",
        f"7 1 0:904 /hosts {FILE} rw - tmpfs tmpfs rw",
        "8 1 0:905 / /tmp rw - tmpfs tmpfs rw",
        "9 1 0:901 / /again rw - tmpfs shm rw",
    ]
    here = tmp_path / "proc" / str(PID)
    for path in (SHM, CACHE, SECRET, DATA, NODES, "/tmp", "/again", "/etc"):
        (here / f"root{path}").mkdir(parents=True)
    (here / f"root{FILE}").touch()
    (here / f"root{SHM}/sem.x").write_bytes(b"x" * 5000)
    (here / "mountinfo").write_text("\n".join(lines) + "\n", encoding="ascii")
    return str(tmp_path / "proc")


def found(proc: str, wish: tuple[str, ...], *more: dict[str, Any]) -> list[str]:
    return [one.destination for one in volumes.find(container(*more), PID, wish, proc)]


def test_which_are_memory_volumes(proc: str) -> None:
    assert found(proc, AUTO) == [SHM, CACHE]
    # One file system under two places is one.
    assert found(proc, AUTO, bind("/again", "/pod/dev/shm")) == [SHM, CACHE]
    assert found(proc, ("none",)) == []
    assert found(proc, (SECRET, SHM)) == [SHM, SECRET]
    (shm, _cache) = volumes.find(container(), PID, AUTO, proc)
    assert (shm.source, shm.used >= 5000) == ("/pod/dev/shm", True)
    assert volumes.devices([shm]) == {"0:901"}


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        (("/none",), "memory_volume_unknown"),
        ((DATA,), "memory_volume_unknown"),
        (("/tmp",), "memory_volume_unknown"),
        ((FILE,), "memory_volume_unfit"),
        (("auto", SHM), "memory_volumes_invalid"),
    ],
)
def test_wishes_that_cannot_be(proc: str, wish: tuple[str, ...], code: str) -> None:
    with pytest.raises(RestoreError) as caught:
        found(proc, wish)
    assert caught.value.code == code


def test_what_cannot_be_kept_is_found_before(proc: str) -> None:
    Path(proc, f"{PID}/root{CACHE}/\n").touch()
    with pytest.raises(RestoreError) as caught:
        found(proc, AUTO)
    assert caught.value.code == "memory_volume_unfit" and CACHE in caught.value.message


def test_no_link_is_followed(proc: str, tmp_path: Path) -> None:
    place = Path(proc, f"{PID}/root{CACHE}")
    place.rmdir()
    place.symlink_to(tmp_path)
    with pytest.raises(RestoreError) as caught:
        found(proc, (CACHE,))
    assert caught.value.code == "memory_volume_unfit"


def other(node: Node, name: str, source: str = "/pod/dev/shm", **labels: str) -> Any:
    found = record(node, mounts=[bind(SHM, source)])
    found.id = name
    for key, value in labels.items():
        found.labels[key.replace("__", "/").replace("_", ".")] = value
    return found


def test_who_has_it_too_is_recorded(
    fake: FakeContainerd, client: Client, node: Node, proc: str, tmp_path: Path
) -> None:
    state = fake.state
    for name, status in (("moving", RUNNING), ("still", PAUSED), ("ended", STOPPED), ("elsewhere", RUNNING)):
        state.containers[name] = other(node, name, "/other" if name == "elsewhere" else "/pod/dev/shm")
        state.tasks[name] = Task(None, 9, status)
    state.containers["pause"] = other(node, "pause")
    state.containers["pause"].labels["io.cri-containerd.kind"] = "sandbox"
    state.tasks["pause"] = Task(None, 9, RUNNING)
    state.containers["idle"] = other(node, "idle")
    those = volumes.find(container(), PID, AUTO, proc)
    (told,) = volumes.warnings(client, container(), those)
    assert "is also one of moving," in told
    packed = volumes.pack(client, container(), PID, those, str(tmp_path), [f"{CACHE}/link_remap.1"], proc)
    assert [one.volume.links for one in packed] == [False, True]
    with tarfile.open(packed[0].path) as archive:
        assert archive.getnames() == ["sem.x"]
    assert os.stat(packed[0].path).st_mode & 0o777 == 0o600
    shm, cache = volumes.store(client, packed)
    assert (shm.shared, shm.paused, shm.container) == (("moving", "still"), ("still",), BOX)
    assert (cache.shared, cache.flags, shm.flags) == ((), ("noexec",), ("nosuid", "nodev"))
    assert len(state.blobs[shm.digest].data) == shm.descriptor.size
    assert MemoryVolume.read(shm.annotated()) == shm
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tar"]
    assert json.loads(shm.annotated().annotations["io.gpuops.restore/memory-volume"])["source"] == "/pod/dev/shm"
    assert containers.get(client, "moving") in containers.list_all(client)


def test_what_cannot_be_packed_is_told(client: Client, proc: str, tmp_path: Path) -> None:
    those = volumes.find(container(), PID, AUTO, proc)
    Path(proc, f"{PID}/root{SHM}/\n").touch()
    with pytest.raises(RestoreError) as caught:
        volumes.pack(client, container(), PID, those, str(tmp_path), (), proc)
    assert caught.value.code == "memory_volume_failed" and "not printable" in caught.value.message
