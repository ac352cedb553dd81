# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is found before a capture stops anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import needs
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import DumpOptions
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import reader as checkpoint_reader, reclaim
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import space
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message, pack
from ansible_collections.gpuops.restore.plugins.module_utils._core import files
from ansible_collections.gpuops.restore.plugins.module_utils._criu import dump_config
from ansible_collections.gpuops.restore.plugins.module_utils._host import memory as host_memory
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, MOUNTINFO, NAME, Box, record
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import BASE_NAME, add_base
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

process = pytest.fixture(capture_samples.process)


@pytest.fixture
def box(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, process: int) -> Iterator[Box]:
    yield Box(fake, client, node, tmp_path, process)


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytes that are free: where the dump is staged, and in the content store, which is elsewhere."""
    found = {"staging": 1 << 40, "content": 1 << 40}
    monkeypatch.setattr(files, "free_bytes", lambda _path: found["staging"])
    monkeypatch.setattr(space, "content_store", lambda _client: space.ContentStore("/proc", found["content"]))
    return found


@pytest.mark.parametrize(
    ("says", "shown"),
    [
        ('echo "Looks odd" >&2; echo "Error (a.c:1): no such feature"', ": Error (a.c:1): no such feature."),
        ('echo "Looks odd" >&2; echo "and so on"', ": Looks odd."),
        ("true", ": it ended without a word."),
    ],
)
def test_criu_has_to_pass_its_own_check(box: Box, node: Node, says: str, shown: str) -> None:
    program = f'#!/bin/sh\n[ "$1" = check ] || {{ echo 1.2.3; exit 0; }}\n{says}\nexit 1\n'
    (node.programs / "criu").write_text(program, encoding="utf-8")
    error = box.refused()
    assert error.code == "criu_unusable"
    assert error.message.endswith(shown)


def test_a_criu_that_is_not_there_is_not_checked(box: Box, node: Node) -> None:
    (node.programs / "criu").unlink()
    assert box.refused().code == "criu_missing"


def test_a_crun_without_criu(box: Box, node: Node) -> None:
    """Named before anything stops; one that has it is taken."""
    found = record(node)
    options = message("containerd.runc.v1.Options", binary_name="crun").SerializeToString()
    found.runtime.options.CopyFrom(pack("containerd.runc.v1.Options", options))
    box.fake.state.containers[BOX] = found
    box.before = box.kept(box.fake.state)
    crun = node.programs / "crun"
    crun.write_text("#!/bin/sh\necho crun version 1.8.1; echo +SYSTEMD +SECCOMP\n", encoding="ascii")
    crun.chmod(0o755)
    error = box.refused()
    assert error.code == "runtime_without_criu" and str(crun) in error.message
    crun.write_text("#!/bin/sh\necho crun version 1.21; echo +SYSTEMD +CRIU\n", encoding="ascii")
    assert box.capture().changed


def test_what_criu_takes_only_when_told_to(box: Box, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it together; and it is taken where that is allowed."""
    found = needs.Found(
        connections=tuple(needs.Connection(f"127.0.0.1:{port}", "10.0.0.1:80", False) for port in range(30)),
        locks=(needs.Lock(box.pid, "a", "POSIX", "/var/lock"),),
    )
    monkeypatch.setattr(needs, "look", lambda _container, _first, _pids, _proc, _root, _volumes: found)
    process = {"terminal": True, "args": ["a"], "cwd": "/"}
    box.fake.state.containers[BOX] = record(node, process=process)
    box.before = box.kept(box.fake.state)
    error = box.refused(criu=DumpOptions(file_locks="false"))
    codes = {problem["code"] for problem in error.details["problems"]}
    assert (error.code, codes) == ("node_problems", {"tcp_connections", "file_locks_held"})
    assert "hold 30 TCP connections (the first: 127.0.0.1:0 -> 10.0.0.1:80)" in error.message
    assert "a file lock (POSIX of /var/lock by process" in error.message
    assert box.capture(criu=DumpOptions(tcp_established="true")).changed


def test_a_mount_that_the_spec_does_not_name(box: Box) -> None:
    path = box.here.proc / str(box.pid) / "mountinfo"
    path.write_text(MOUNTINFO + "3 1 8:2 / /mnt rw - ext4 /dev/sdb rw\n", encoding="ascii")
    error = box.refused()
    assert (error.code, error.details) == ("mount_not_in_spec", {"mounts": ["/mnt"], "hooks": []})
    assert "/mnt (ext4)" in error.message


@pytest.mark.parametrize(("where", "code"), [("staging", "staging_no_space"), ("content", "content_no_space")])
def test_the_dump_has_to_find_room_on_both_file_systems(
    box: Box, room: dict[str, int], monkeypatch: pytest.MonkeyPatch, where: str, code: str
) -> None:
    size = 3 << 30
    monkeypatch.setattr(host_memory, "own", lambda _pids, _proc: size)
    room[where] = size - 1
    assert box.refused().code == code
    room[where] = size + (files.RESERVE if where == "staging" else 0)
    assert box.capture().changed


@pytest.mark.parametrize(
    ("wanted", "holes", "needed"),
    [
        ({"keep_staged": True}, True, 6 << 30),
        ({"store": "both"}, True, 6 << 30),
        ({"leave": "stopped"}, True, 6 << 30),
        ({}, False, 6 << 30),
        # Of a dump that nobody needs any more, the last of what the image has already.
        ({}, True, 4 << 30),
        ({"leave": "paused"}, True, 4 << 30),
    ],
)
def test_on_one_file_system_it_lies_twice_unless_the_dump_is_spent(
    box: Box,
    room: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    wanted: dict[str, Any],
    holes: bool,
    needed: int,
) -> None:
    monkeypatch.setattr(host_memory, "own", lambda _pids, _proc: 3 << 30)
    monkeypatch.setattr(space, "content_store", lambda _client: space.ContentStore(str(tmp_path), room["staging"]))
    monkeypatch.setattr(reclaim, "works_in", lambda _directory: holes)
    room["staging"] = needed + files.RESERVE - 1
    assert box.refused(**wanted).code == "staging_no_space"
    room["staging"] += 1
    assert box.capture(True, **wanted).changed


def test_on_the_node_it_lies_once_and_that_is_said(
    box: Box, room: dict[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = 3 << 30
    monkeypatch.setattr(host_memory, "own", lambda _pids, _proc: size)
    monkeypatch.setattr(space, "content_store", lambda _client: space.ContentStore(str(tmp_path), room["staging"]))
    room["staging"] = size + files.RESERVE
    refused = box.refused()
    assert (refused.code, refused.details["fits"]) == ("staging_no_space", "node")
    assert "store: node" in refused.remedy
    assert box.capture(True, store="node").changed
    room["staging"] -= 1
    assert "fits" not in box.refused(store="node").details
    assert "fits" not in box.refused().details


# --- the base image


def test_a_name_that_has_moved_on_is_not_believed(box: Box, fake: FakeContainerd, client: Client, node: Node) -> None:
    old = fake.state.images[BASE_NAME]
    moved = add_base(fake.state, text=b"newer")
    box.before = box.kept(fake.state)
    error = box.refused()
    assert (error.code, error.details["found"]) == ("base_image_moved", moved.digest)
    old.name = "example.test/app@old"
    fake.state.images[old.name] = old
    box.capture()
    found = checkpoint_reader.load(client, NAME)
    assert found.base is not None
    assert (found.base.digest, found.base_name) == (node.base.digest, old.name)


def test_an_image_that_is_gone_is_warned_of(box: Box, fake: FakeContainerd) -> None:
    del fake.state.images[BASE_NAME]
    done = box.capture()
    assert BASE_NAME in done.warnings[0]
    assert (done.facts.base_image, done.facts.base_image_digest) == (BASE_NAME, None)


def test_a_container_that_names_no_image_has_none(box: Box, fake: FakeContainerd) -> None:
    fake.state.containers[BOX].image = ""
    done = box.capture()
    assert done.warnings == []
    assert (done.facts.base_image, done.facts.base_image_digest) == ("", None)


def test_the_spec_that_runs_is_captured(box: Box, node: Node) -> None:
    """The runtime has added a bind, a device and a hook to what containerd's record has."""
    recorded = capture_samples.spec()
    box.running = json.loads(json.dumps(recorded))
    library = {"destination": "/lib/libcuda.so.1", "type": "bind", "source": "/srv/libcuda.so.1", "options": ["rbind"]}
    box.running["mounts"] = [*(recorded.get("mounts") or ()), library]
    box.running["hooks"] = {"prestart": [{"path": "/usr/bin/hook"}]}
    bound = "3 1 8:2 /srv/libcuda.so.1 /lib/libcuda.so.1 rw - ext4 /dev/sdb rw\n"
    (box.here.proc / str(box.pid) / "mountinfo").write_text(MOUNTINFO + bound, encoding="ascii")
    done = box.capture()
    assert done.added_by_runtime == {
        "mounts": ["/lib/libcuda.so.1"],
        "devices": [],
        "env": [],
        "hooks": ["/usr/bin/hook"],
    }
    captured = checkpoint_reader.spec(box.client, checkpoint_reader.load(box.client, NAME))
    assert captured is not None
    assert captured["mounts"][-1] == library and "prestart" in captured["hooks"]


def test_a_hook_is_named_where_its_mount_cannot_be_taken(box: Box) -> None:
    box.running = {**capture_samples.spec(), "hooks": {"prestart": [{"path": "/usr/bin/hook"}]}}
    path = box.here.proc / str(box.pid) / "mountinfo"
    path.write_text(MOUNTINFO + "3 1 8:2 / /mnt rw - ext4 /dev/sdb rw\n", encoding="ascii")
    error = box.refused()
    assert (error.code, error.details) == ("mount_not_in_spec", {"mounts": ["/mnt"], "hooks": ["/usr/bin/hook"]})
    assert "added by a hook of its runtime (/usr/bin/hook)" in error.message and "mode cdi" in error.remedy


def test_a_bundle_that_is_not_found_is_warned_of(box: Box) -> None:
    (box.here.proc / str(os.getpid()) / "cwd").unlink()
    (warning,) = box.capture().warnings
    assert "The bundle that box runs from was not found" in warning


def bound(box: Box, tmp_path: Path) -> None:
    """What a hook has mounted: the node's file is the container's."""
    shim, task = box.here.proc / str(os.getpid()), box.here.proc / str(box.pid)
    for root in (shim / "root" / "srv", task / "root" / "lib"):
        root.mkdir(parents=True)
    (shim / "root" / "srv" / "lib.so").write_text("library", encoding="ascii")
    os.link(shim / "root" / "srv" / "lib.so", task / "root" / "lib" / "lib.so")
    (shim / "mountinfo").write_text("1 0 8:2 / / rw - ext4 /dev/sdb rw\n", encoding="ascii")
    mount = "3 1 8:2 /srv/lib.so /lib/lib.so ro,relatime - ext4 /dev/sdb rw\n"
    (task / "mountinfo").write_text(MOUNTINFO + mount, encoding="ascii")


def test_criu_is_told_of_what_a_hook_has_mounted(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound(box, tmp_path)
    config = tmp_path / "criu" / "runc.conf"
    monkeypatch.setattr(dump_config, "NODE_CONFIG", str(config))
    seen: list[str] = []
    box.fake.on("Tasks/Checkpoint", lambda _context: seen.append(config.read_text(encoding="ascii")))
    predicted = box.capture(True)
    done = box.capture()
    assert done.mounts_taken == predicted.mounts_taken == [{"destination": "/lib/lib.so", "source": "/srv/lib.so"}]
    assert "\nexternal=mnt[/lib/lib.so]:/lib/lib.so\n" in seen[0] and not config.parent.exists()
    captured = checkpoint_reader.spec(box.client, checkpoint_reader.load(box.client, NAME))
    assert captured is not None
    options = ["bind", "rprivate", "ro"]
    taken = {"destination": "/lib/lib.so", "type": "bind", "source": "/srv/lib.so", "options": options}
    assert captured["mounts"][-1] == taken


def test_a_foreign_configuration_is_not_written_into(box: Box, node: Node, tmp_path: Path) -> None:
    bound(box, tmp_path)
    box.fake.state.containers[BOX] = record(node, annotations={"org.criu.config": "/etc/foreign.conf"})
    box.before = box.kept(box.fake.state)
    error = box.refused()
    assert error.code == "criu_config_foreign"
    assert "external=mnt[/lib/lib.so]:/lib/lib.so" in error.remedy
