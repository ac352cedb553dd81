# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs that were broken off have left: found where it lies, by whoever comes next, never under a live run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import leftovers, mark as capture_mark
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import daemon, extracted, network_locks
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError, RpcError
from ansible_collections.gpuops.restore.plugins.module_utils._host import processes
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Blob

KEY, OTHER = "ab" * 32, "cd" * 32


class Place:
    """A state directory with what may lie there."""

    def __init__(self, client: Client, root: Path) -> None:
        self.client = client
        self.state = root / "state"
        self.state.mkdir(mode=0o700)
        self.marks = str(root / "run" / "capture")
        self.runtime = root / "runtime"
        self.runtime.mkdir()

    def dump(self, container: str = "job", namespace: str = "tests") -> Path:
        images = self.state / "capture" / namespace / container / "images"
        images.mkdir(parents=True)
        (images / "pages-1.img").write_bytes(b"m" * 9000)
        (images.parent / "work").mkdir()
        return images.parent

    def partial(self, key: str = KEY) -> Path:
        path = self.state / f".{key}.partial-4711"
        (path / "images").mkdir(parents=True)
        (path / "images" / "pages-1.img").write_bytes(b"m" * 5000)
        return path

    def copy(self) -> Path:
        work = str(self.state / "work" / "tests" / "job")
        with contextlib.suppress(KeyboardInterrupt):
            found = extracted.Extraction(self.client, str(self.state), work, 8192).__enter__()
            with found.creating():
                (self.runtime / "ctrd-checkpoint1").mkdir()
                raise KeyboardInterrupt
        os.close(found._descriptor)
        return self.runtime / "ctrd-checkpoint1"

    def sweep(self, check: bool = False, keep_partials: bool = False) -> leftovers.Swept:
        return leftovers.sweep(self.client, str(self.state), check, keep_partials, self.marks)


@pytest.fixture(autouse=True)
def locks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of networks; those of this machine are not touched."""
    found: list[str] = []
    monkeypatch.setattr(network_locks, "everywhere", lambda _path, remove: found)
    return found


@pytest.fixture
def place(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    found = Place(client, tmp_path)
    environment = {"PATH": "", "XDG_RUNTIME_DIR": str(found.runtime)}
    monkeypatch.setattr(daemon, "daemon_environment", lambda _client: environment)
    monkeypatch.setattr(extracted, "_QUIET_SECONDS", 0.0)
    return found


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def test_all_of_it_goes_and_the_empty_state_directory_too(place: Place) -> None:
    """As after a reboot: nothing is below /run."""
    paths = [place.dump(), place.dump("other", "elsewhere"), place.partial(), place.copy()]
    predicted = place.sweep(check=True)
    assert all(path.exists() for path in paths) and not os.path.exists(place.marks)
    found = place.sweep()
    assert predicted.removed == found.removed
    assert sorted(left.name.replace(f"/proc/{os.getpid()}/root", "") for left in found.removed) == sorted(
        map(str, paths)
    )
    assert [left.kind for left in found.removed].count("dump") == 2
    assert all(left.bytes for left in found.removed if left.kind != "extracted_checkpoint")
    assert not any(path.exists() for path in paths)
    assert not os.path.exists(place.marks)
    assert place.sweep().removed == []
    assert os.listdir(place.state) == ["work"], "what is not memory is a workload's own"


def test_without_a_state_directory_nothing_is_made(place: Place) -> None:
    place.state.rmdir()
    assert place.sweep().removed == []
    assert not place.state.exists() and not os.path.exists(place.marks)


def test_what_a_live_run_holds_stays(place: Place) -> None:
    dump, partial = place.dump(), place.partial()
    with capture_mark.locked(place.marks, "tests", "job"), locked(partial):
        for check in (True, False):
            assert place.sweep(check).removed == []
    assert dump.exists() and partial.exists()
    assert len(place.sweep().removed) == 2


@pytest.mark.parametrize("program", ["criu", ""])
def test_a_dump_that_criu_still_writes_stays(place: Place, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """One that somebody else only looks at does not."""
    dump = place.dump()
    writes = "import sys, time; stream = open(sys.argv[1], 'a'); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", writes, str(dump / "images" / "pages-2.img")], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline()
        monkeypatch.setattr(processes, "root_program", lambda pid, _proc: program if pid == writer.pid else "")
        found = place.sweep()
        writer.kill()
    if not program:
        assert [left.name for left in found.removed] == [str(dump)]
        return
    assert found.removed == [] and str(writer.pid) in found.warnings[0]
    assert dump.exists()
    assert [left.name for left in place.sweep().removed] == [str(dump)]


def test_the_mark_of_a_paused_workload_stays_for_the_one_who_resumes_it(place: Place) -> None:
    place.dump()
    with capture_mark.locked(place.marks, "tests", "job") as mark_file:
        mark_file.write(capture_mark.Mark(1, 2, "/nonexistent/d", "/nonexistent", "", "overlayfs", "v", "", False, "n"))
    assert len(place.sweep().removed) == 1
    assert capture_mark.peek(place.marks, "tests", "job") is not None


def test_the_mark_of_a_parked_workload_names_no_directory(place: Place) -> None:
    with capture_mark.locked(place.marks, "tests", "job") as mark_file:
        mark_file.write(capture_mark.Mark(1, 2, "", "", "", "", "", "", True, "", capture_mark.PARKED))
    with patch.object(leftovers.staged_checkpoint, "root_exists", return_value=False) as asked:
        assert place.sweep().removed == []
    assert "" not in [call.args[0] for call in asked.call_args_list]
    assert capture_mark.peek(place.marks, "tests", "job") is not None


def test_a_dump_on_another_disk_is_found_by_its_mark(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "memory"
    images = elsewhere / "capture" / "tests" / "job" / "images"
    images.mkdir(parents=True)
    elsewhere.chmod(0o700)
    (images / "pages-1.img").write_bytes(b"m" * 5000)
    with capture_mark.locked(place.marks, "tests", "job") as mark_file:
        directory = str(images.parent)
        mark_file.write(capture_mark.Mark(1, 2, directory, str(elsewhere), "", "overlayfs", "v", "", False, "n"))
        assert place.sweep().removed == []
    assert [left.name for left in place.sweep(check=True).removed] == [directory]
    assert [left.name for left in place.sweep().removed] == [directory]
    assert not elsewhere.exists()


def test_half_a_staged_checkpoint_may_stay_while_it_can_be_finished(fake: FakeContainerd, place: Place) -> None:
    fake.state.blobs[f"sha256:{KEY}"] = Blob(b"index")
    paths = [place.partial(KEY), place.partial(OTHER)]
    assert [left.name for left in place.sweep(keep_partials=True).removed] == [str(paths[1])]
    assert [left.name for left in place.sweep().removed] == [str(paths[0])]


def test_other_names_are_not_ours(place: Place) -> None:
    for name in (".secret", f".{KEY}.partial-x", f"{KEY}.partial-1", KEY):
        (place.state / name).mkdir()
    (place.state / f".{KEY}.partial-1").symlink_to("/etc")
    (place.state / "capture").mkdir()
    (place.state / "capture" / "file").write_text("")
    before = sorted(os.listdir(place.state))
    assert place.sweep().removed == []
    assert sorted(os.listdir(place.state)) == before


def test_a_directory_that_others_can_write_to_is_refused(place: Place) -> None:
    place.dump()
    place.state.chmod(0o777)
    with pytest.raises(NodeError) as caught:
        place.sweep()
    assert caught.value.code == "staging_dir_unsafe"


def test_leases_and_names_of_runs_that_have_ended_go_with_what_only_they_kept(
    fake: FakeContainerd, place: Place
) -> None:
    alive = processes.identity(os.getpid())
    dead = alive.rpartition("/")[0] + "/1"
    other_boot = "0" * 8 + alive[8:]
    process = "io.gpuops.restore/process"
    fake.state.leases.update({"a": {process: alive}, "b": {process: dead}, "c": {process: other_boot}, "d": {}})
    name = "pull.gpuops-restore.invalid/"
    for key, who in (("1", alive), ("2", dead), ("3", "earlier-release")):
        full = f"{name}{who}/{key}:latest"
        fake.state.images[full] = message("containerd.services.images.v1.Image", name=full)
    found = place.sweep(check=True).removed
    assert len(fake.state.leases) == 4 and found == place.sweep().removed
    assert {left.name for left in found} == {"b", "c", f"{name}{dead}/2:latest", f"{name}earlier-release/3:latest"}
    assert sorted(fake.state.leases) == ["a", "d"]
    fake.state.leases["b"] = {process: dead}
    assert place.sweep(keep_partials=True).removed == [], "an import may go on with what it keeps"
    assert [image for image in fake.state.images if image.startswith(name)] == [f"{name}{alive}/1:latest"]


def test_a_daemon_that_does_not_answer_is_said_when_the_files_are_gone(fake: FakeContainerd, place: Place) -> None:
    dump, copy = place.dump(), place.copy()
    fake.stop()
    with pytest.raises(RpcError):
        place.sweep()
    assert not dump.exists() and copy.exists()


def test_locks_of_networks_are_listed(client: Client, tmp_path: Path, locks: list[str]) -> None:
    locks.append("the chain CRIU of iptables in the network namespace /run/netns/a")
    swept = Place(client, tmp_path).sweep(check=True)
    assert [one.result() for one in swept.removed] == [{"kind": "criu_network_lock", "name": locks[0], "bytes": None}]
