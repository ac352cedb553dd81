# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import types
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import leftovers
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.containers import SPEC_TYPE
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message, pack
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import UNKNOWN, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._host import mountinfo
from ansible_collections.gpuops.restore.tests.unit.helpers import host_process
from ansible_collections.gpuops.restore.tests.unit.helpers.clock import Clock
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

SHIM = "/usr/bin/containerd-shim-runc-v2"


def test_only_the_shims_of_this_container_are_found(tmp_path: Path) -> None:
    host_process.add(tmp_path, 10, SHIM, "-namespace", "k8s.io", "-id", "train", "-address", "/run/c.sock")
    host_process.add(tmp_path, 11, SHIM, "-namespace", "default", "-id", "train", "-address", "/run/c.sock")
    host_process.add(tmp_path, 12, SHIM, "-namespace", "k8s.io", "-id", "train-2", "-address", "/run/c.sock")
    host_process.add(tmp_path, 13, "/usr/bin/vi", "-namespace", "k8s.io", "-id", "train")
    host_process.add(tmp_path, 14)
    host_process.add(
        tmp_path, 15, "/opt/containerd-shim-other-v1", "-id", "train", "-debug", "-namespace", "k8s.io", "start"
    )
    (tmp_path / "16").mkdir()  # it ended meanwhile
    host_process.add(tmp_path, 17, SHIM, "-namespace", "k8s.io", "-id", "train", program=f"{SHIM} (deleted)")
    assert sorted(leftovers.shim_pids("k8s.io", "train", str(tmp_path))) == [10, 15, 17]


@pytest.mark.parametrize("how", host_process.NOT_ROOTS)
def test_nobody_can_pretend_to_be_a_shim(tmp_path: Path, killed: list[int], how: str) -> None:
    """Anybody can have any command line: then each end of a task would fail, and the way back from a failure too."""
    words = (SHIM, "-namespace", "k8s.io", "-id", "train")
    host_process.add(tmp_path, 10, *words, **host_process.NOT_ROOTS[how])
    assert leftovers.shim_pids("k8s.io", "train", str(tmp_path)) == []
    clock = Clock()
    leftovers.require_shim_gone("k8s.io", "train", str(tmp_path), clock, clock.sleep)
    leftovers.end_orphaned_shims("k8s.io", "train", str(tmp_path), clock, clock.sleep)
    assert (clock.now, killed) == (0.0, [])


def shim(proc: Path, pid: int, container_id: str = "train") -> None:
    host_process.add(proc, pid, SHIM, "-namespace", "k8s.io", "-id", container_id)


def test_where_there_is_none_nothing_is_waited_for_nor_killed(tmp_path: Path, killed: list[int]) -> None:
    shim(tmp_path, 7, "other")
    clock = Clock()
    leftovers.require_shim_gone("k8s.io", "train", str(tmp_path), clock, clock.sleep)
    leftovers.end_orphaned_shims("k8s.io", "train", str(tmp_path), clock, clock.sleep)
    assert (clock.now, killed) == (0.0, [])


def test_a_shim_that_ends_late_is_waited_for(tmp_path: Path) -> None:
    shim(tmp_path, 7)
    clock = Clock(9.9, lambda: shutil.rmtree(tmp_path / "7"))
    leftovers.require_shim_gone("k8s.io", "train", str(tmp_path), clock, clock.sleep)
    assert 9.9 <= clock.now < 10.0


def test_a_shim_that_stays_is_said(tmp_path: Path) -> None:
    shim(tmp_path, 7)
    shim(tmp_path, 8)
    clock = Clock()
    with pytest.raises(RestoreError) as caught:
        leftovers.require_shim_gone("k8s.io", "train", str(tmp_path), clock, clock.sleep)
    assert (caught.value.code, caught.value.outcome) == ("shim_left", UNKNOWN)
    assert "7" in caught.value.message and "8" in caught.value.message and "train" in caught.value.message
    assert "still runs 10 s after" in caught.value.message
    assert 10.0 <= clock.now < 10.1


def test_an_orphaned_shim_may_end_by_itself(tmp_path: Path, killed: list[int]) -> None:
    shim(tmp_path, 7)
    clock = Clock(0.5, lambda: shutil.rmtree(tmp_path / "7"))
    leftovers.end_orphaned_shims("k8s.io", "train", str(tmp_path), clock, clock.sleep)
    assert killed == []


def test_an_orphaned_shim_that_stays_is_killed(tmp_path: Path, killed: list[int]) -> None:
    shim(tmp_path, 7)
    shim(tmp_path, 8, "other")
    clock = Clock(1.5, lambda: shutil.rmtree(tmp_path / "7"))
    leftovers.end_orphaned_shims("k8s.io", "train", str(tmp_path), clock, clock.sleep)
    assert killed == [7]


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes to which SIGKILL was sent, which it does not reach."""
    found: list[int] = []

    def kill(pid: int, number: int) -> None:
        assert number == signal.SIGKILL
        found.append(pid)

    monkeypatch.setattr(leftovers.os, "kill", kill)
    return found


# --- runc's state


@pytest.fixture
def state(fake: FakeContainerd, client: Client, tmp_path: Path) -> Path:
    """runc's directory of the container ``box``, whose restore was broken off."""
    options = message("containerd.runc.v1.Options", root=str(tmp_path / "runc"))
    runtime = message("containerd.services.containers.v1.Container.Runtime", name="io.containerd.runc.v2")
    runtime.options.CopyFrom(pack("containerd.runc.v1.Options", options.SerializeToString()))
    fake.state.containers["box"] = message("containerd.services.containers.v1.Container", id="box", runtime=runtime)
    found = tmp_path / "runc" / client.namespace / "box"
    (found / "criu-root").mkdir(parents=True)
    (found / "runc.pid").write_text("7", encoding="ascii")
    return found


def test_the_state_of_a_restore_that_was_broken_off_goes(client: Client, state: Path) -> None:
    assert leftovers.runc_state(client, "box") == str(state)
    assert leftovers.remove_runc_state(client, "box") is True
    assert not state.exists() and state.parent.exists()
    assert leftovers.runc_state(client, "box") == ""
    assert leftovers.remove_runc_state(client, "box") is False


def test_the_state_of_a_container_that_runc_knows_stays(client: Client, state: Path) -> None:
    (state / "state.json").write_text("{}", encoding="ascii")
    assert leftovers.runc_state(client, "box") == ""
    assert leftovers.remove_runc_state(client, "box") is False
    assert sorted(os.listdir(state)) == ["criu-root", "runc.pid", "state.json"]


def test_the_state_of_a_restore_under_way_stays(client: Client, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "shim_pids", lambda namespace, container_id: [7])
    assert leftovers.remove_runc_state(client, "box") is False
    assert sorted(os.listdir(state)) == ["criu-root", "runc.pid"]


def test_what_may_be_a_root_file_system_is_never_removed(client: Client, state: Path) -> None:
    """A mount that could not be taken away shows the container's files."""
    (state / "criu-root" / "etc").mkdir()
    with pytest.raises(RestoreError) as caught:
        leftovers.remove_runc_state(client, "box")
    assert (caught.value.code, caught.value.outcome) == ("runc_state_left", UNKNOWN)
    assert caught.value.details == {"directory": str(state)}
    assert (state / "criu-root" / "etc").exists()


def uses_cgroup(fake: FakeContainerd, path: str) -> None:
    """The container's spec names this control group."""
    spec = {"linux": {"cgroupsPath": path}} if path else {}
    fake.state.containers["box"].spec.CopyFrom(pack(SPEC_TYPE, json.dumps(spec).encode()))


def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> list[Path]:
    """A hierarchy of v1 and that of v2, each with a group in which there are processes."""
    monkeypatch.setattr(leftovers, "_CGROUPS", str(tmp_path / "cgroups"))
    found = [tmp_path / "cgroups" / "freezer" / path, tmp_path / "cgroups" / path]
    for number, group in enumerate(found):
        group.mkdir(parents=True, exist_ok=True)
        # 0 is a process of another pid namespace.
        (group / "cgroup.procs").write_text(f"0\n7{number}\n", encoding="ascii")
    return found


def test_processes_of_the_containers_own_control_groups_are_ended_with_the_groups(
    fake: FakeContainerd, client: Client, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uses_cgroup(fake, "/gpuops-restore-tests--box")
    groups = cgroups(tmp_path, monkeypatch, "gpuops-restore-tests--box")
    killed: list[int] = []
    remove_directory = os.rmdir

    def kill(pid: int, _number: int) -> None:
        killed.append(pid)
        if len(killed) % 2 == 0:
            # It takes two signals, and the kernel removes its own files with a group.
            (groups[pid - 70] / "cgroup.procs").write_text("0\n", encoding="ascii")

    def remove(path: str) -> None:
        if Path(path) in groups:
            os.unlink(os.path.join(path, "cgroup.procs"))
        remove_directory(path)

    monkeypatch.setattr(leftovers.os, "kill", kill)
    monkeypatch.setattr(leftovers.os, "rmdir", remove)
    clock = Clock()
    assert leftovers.remove_runc_state(client, "box", clock, clock.sleep) is True
    assert killed == [70, 70, 71, 71]
    assert [group.exists() for group in groups] == [False, False]
    assert not state.exists()


@pytest.mark.parametrize(
    "path",
    [
        "/kubepods/box",
        "/gpuops-restore-tests--other",
        # That of a container of the same name in another namespace.
        "/gpuops-restore-box",
        "gpuops-restore-tests--box",
        "system.slice:gpuops-restore:tests--box",
        "",
    ],
)
def test_a_control_group_that_others_may_be_in_is_left_alone(
    fake: FakeContainerd,
    client: Client,
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed: list[int],
    path: str,
) -> None:
    uses_cgroup(fake, path)
    groups = cgroups(tmp_path, monkeypatch, path.lstrip("/"))
    assert leftovers.remove_runc_state(client, "box") is True
    assert killed == []
    assert all((group / "cgroup.procs").exists() for group in groups)
    assert not state.exists()


def test_processes_that_do_not_end_are_said(
    fake: FakeContainerd,
    client: Client,
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed: list[int],
) -> None:
    uses_cgroup(fake, "/gpuops-restore-tests--box")
    cgroups(tmp_path, monkeypatch, "gpuops-restore-tests--box")
    clock = Clock()
    with pytest.raises(RestoreError) as caught:
        leftovers.remove_runc_state(client, "box", clock, clock.sleep)
    assert (caught.value.code, caught.value.outcome) == ("runc_state_left", UNKNOWN)
    assert set(killed) == {70}
    assert 10.0 <= clock.now < 10.1
    assert state.exists()


@pytest.mark.parametrize("failing", [False, True])
def test_mounts_below_it_are_taken_away_the_deepest_first(
    client: Client, state: Path, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    text = "".join(
        f"1 1 0:50 / {point} rw - tmpfs tmpfs rw\n"
        for point in (f"{state}/criu-root", f"{state}/criu-root/proc", f"{state}-2/criu-root", "/proc")
    )
    monkeypatch.setattr(mountinfo, "read", lambda: text)
    unmounted: list[str] = []

    def umount2(path: bytes, flags: int) -> int:
        assert flags == 2, "MNT_DETACH"
        unmounted.append(path.decode())
        return -1 if failing else 0

    monkeypatch.setattr(leftovers, "_LIBC", SimpleNamespace(umount2=umount2))
    if failing:
        with pytest.raises(RestoreError) as caught:
            leftovers.remove_runc_state(client, "box")
        assert caught.value.code == "runc_state_left"
        assert unmounted == [f"{state}/criu-root/proc"]
        assert state.exists()
    else:
        assert leftovers.remove_runc_state(client, "box") is True
        assert unmounted == [f"{state}/criu-root/proc", f"{state}/criu-root"]


def test_another_runtimes_options_name_no_root_of_runc(
    fake: FakeContainerd, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "DEFAULT_ROOT", str(tmp_path / "default"))
    (tmp_path / "default" / client.namespace / "box").mkdir(parents=True)
    runtime = message("containerd.services.containers.v1.Container.Runtime", name="io.containerd.runc.v2")
    record = message("containerd.services.containers.v1.Container", id="box", runtime=runtime)
    for options in (None, pack("example.test/Options", b"\x0a\x01/")):
        if options is not None:
            record.runtime.options.CopyFrom(options)
        fake.state.containers["box"] = record
        assert leftovers.runc_state(client, "box") == str(tmp_path / "default" / client.namespace / "box")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_mount_of_a_criu_that_lives_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / ".criu.mntns.AbCd12"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    try:
        client = types.SimpleNamespace(peer_pid=os.getpid)
        (place / "mnt-0000000270").touch()
        monkeypatch.setattr(leftovers.processes, "root_program", lambda pid, proc: "criu")
        assert leftovers.criu_mounts(client, remove=True) == []  # type: ignore[arg-type]
        monkeypatch.setattr(leftovers.processes, "root_program", lambda pid, proc: "")
        assert str(place) in leftovers.criu_mounts(client, remove=False)  # type: ignore[arg-type]
        assert place.is_mount()
        assert str(place) in leftovers.criu_mounts(client, remove=True)  # type: ignore[arg-type]
        assert not place.exists()
    finally:
        subprocess.run(["umount", str(place)], check=False, capture_output=True)
