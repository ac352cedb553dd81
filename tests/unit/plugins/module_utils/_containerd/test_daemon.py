# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import daemon
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message, pack
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import plugin
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

SNAPSHOTTER = "io.containerd.snapshotter.v1"


def program(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


# --- plugins


def test_plugins_with_their_errors_and_roots(client: Client) -> None:
    found = daemon.plugins(client)
    assert daemon.Plugin(SNAPSHOTTER, "overlayfs", "", "/data/overlayfs") in found
    assert daemon.Plugin(SNAPSHOTTER, "zfs", "no zpool", "") in found
    assert daemon.snapshotters(found) == ["overlayfs"]


def test_a_snapshotter_has_to_be_there_and_to_work(client: Client) -> None:
    daemon.require_snapshotter(client, "overlayfs")
    for name, words in (("zfs", "no zpool"), ("btrfs", "does not exist")):
        with pytest.raises(NodeError) as caught:
            daemon.require_snapshotter(client, name)
        assert caught.value.code == "snapshotter_unknown"
        assert words in caught.value.message and "overlayfs" in caught.value.message


def test_where_the_data_lies(fake: FakeContainerd, client: Client) -> None:
    assert daemon.data_roots(daemon.plugins(client)) == {"content": "/data/content", "snapshots": "/data/overlayfs"}
    fake.state.plugins = [plugin(SNAPSHOTTER, "native", root="/data/native")]
    assert daemon.data_roots(daemon.plugins(client)) == {"content": "", "snapshots": "/data/native"}
    assert daemon.data_roots([]) == {"content": "", "snapshots": ""}


def test_whether_the_cri_plugin_works() -> None:
    old = daemon.Plugin("io.containerd.grpc.v1", "cri", "", "")
    assert daemon.cri_ok([]) is None
    assert daemon.cri_ok([old]) is True
    assert daemon.cri_ok([old, daemon.Plugin("io.containerd.cri.v1", "images", "bad config", "")]) is False


# --- environment


def test_the_daemons_environment_is_that_of_its_process(client: Client) -> None:
    with open("/proc/self/environ", "rb") as stream:
        own = dict(entry.split(b"=", 1) for entry in stream.read().split(b"\0") if b"=" in entry)
    found = daemon.daemon_environment(client)
    assert found["PATH"] == own[b"PATH"].decode()
    assert set(found) <= {"PATH", "TMPDIR", "XDG_RUNTIME_DIR"}


def test_without_a_readable_process_the_usual_path(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "peer_pid", lambda: 999999999)
    assert daemon.daemon_environment(client) == {"PATH": daemon._DEFAULT_PATH}


# --- programs


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("echo 'runc version 1.1.15+ds1'; echo 'commit: 1.2'", "1.1.15+ds1"),
        ("echo 'Version: 4.1.1'", "4.1.1"),
        ("echo 'iptables-restore v1.8.11 (nf_tables)'", "1.8.11"),
        ("echo 'Version: 4.1' >&2", "4.1"),
        ("printf '\\377 1.2'", "1.2"),
        ("echo no version", ""),
        ("exit 3", ""),
    ],
)
def test_a_program_and_its_version(tmp_path: Path, text: str, version: str) -> None:
    where = program(tmp_path, "tool", text)
    found = daemon.find_program("tool", str(tmp_path))
    assert (found.path, found.version) == (where, version)
    assert found.result() == {"present": True, "path": where, "version": version}


def test_a_program_that_is_not_there_or_may_not_be_run(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("no program", encoding="utf-8")
    for name in ("tool", "other"):
        assert daemon.find_program(name, str(tmp_path)).result() == {"present": False, "path": "", "version": ""}


def test_a_program_that_cannot_be_executed_is_still_there(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"\x7fELF")
    (tmp_path / "tool").chmod(0o755)
    assert daemon.find_program("tool", str(tmp_path)) == daemon.Program(str(tmp_path / "tool"), "")


def test_the_shim_of_a_runtime(tmp_path: Path) -> None:
    shim = program(tmp_path, "containerd-shim-runc-v2", "")
    path = str(tmp_path)
    assert daemon.shim_program("io.containerd.runc.v2", path).path == shim
    assert daemon.shim_program(shim, "").path == shim
    for absent in ("io.containerd.kata.v2", "runc", "", f"{path}/none"):
        assert daemon.shim_program(absent, path).path == ""
    daemon.require_runtime("io.containerd.runc.v2", path)
    with pytest.raises(NodeError) as caught:
        daemon.require_runtime("io.containerd.kata.v2", path)
    assert caught.value.code == "runtime_absent" and "kata" in caught.value.message


def test_what_lacks_for_a_restore_is_listed_in_full(tmp_path: Path) -> None:
    codes = [problem.code for problem in daemon.restore_problems(str(tmp_path))]
    assert codes == ["runc_missing", "criu_missing", "iptables_restore_missing"]
    for name in ("runc", "criu"):
        program(tmp_path, name, "")
    (left,) = daemon.restore_problems(str(tmp_path))
    assert left.code == "iptables_restore_missing" and str(tmp_path) in left.message
    assert daemon.restore_problems(str(tmp_path), iptables=False) == []
    program(tmp_path, "iptables-restore", "")
    assert daemon.restore_problems(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("options", "driver"),
    [
        (None, "cgroupfs"),
        ({}, "cgroupfs"),
        ({"systemd_cgroup": True}, "systemd"),
        ({"binary_name": "crun"}, "cgroupfs"),
    ],
)
def test_the_cgroup_driver_of_runtime_options(options: Any, driver: str) -> None:
    kind = "containerd.runc.v1.Options"
    packed = None if options is None else pack(kind, message(kind, **options).SerializeToString())
    assert daemon.cgroup_driver(packed) == driver
    if packed is not None:
        packed.type_url = "type.googleapis.com/" + kind
        assert daemon.cgroup_driver(packed) == driver
        packed.type_url = "other.v1.Options"
        assert daemon.cgroup_driver(packed) == "cgroupfs"


def test_the_tests_own_socket_is_served_by_this_process(client: Client) -> None:
    assert client.peer_pid() == os.getpid()


def test_runc_is_only_missed_where_it_would_be_called(tmp_path: Path) -> None:
    for name in ("criu", "iptables-restore"):
        program(tmp_path, name, "")
    assert [problem.code for problem in daemon.restore_problems(str(tmp_path))] == ["runc_missing"]
    assert daemon.restore_problems(str(tmp_path), program="/opt/rt/runc") == []


def test_the_program_that_a_runtime_calls(tmp_path: Path) -> None:
    program(tmp_path, "containerd-shim-runc-v2", "")
    for name in ("crun", str(tmp_path / "crun")):
        with pytest.raises(NodeError) as caught:
            daemon.require_runtime("io.containerd.runc.v2", str(tmp_path), name)
        assert caught.value.code == "runtime_program_absent" and name in caught.value.message
    program(tmp_path, "crun", "echo crun version 1.21; echo +SYSTEMD +SECCOMP")
    with pytest.raises(NodeError) as caught:
        daemon.require_runtime("io.containerd.runc.v2", str(tmp_path), "crun")
    assert caught.value.code == "runtime_without_criu"
    program(tmp_path, "crun", "echo crun version 1.21; echo +SYSTEMD +CRIU")
    daemon.require_runtime("io.containerd.runc.v2", str(tmp_path), "crun")
