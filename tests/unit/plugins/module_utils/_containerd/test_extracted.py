# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of memory that containerd extracts: the daemon is this very process, its temporary directory one of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import daemon, extracted
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.tests.unit.helpers.clock import Clock
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

SIZE = 1 << 20


@pytest.fixture
def runtime(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The daemon's directory for temporary files."""
    found = tmp_path / "runtime"
    found.mkdir()
    environment = {"PATH": "", "XDG_RUNTIME_DIR": str(found)}
    monkeypatch.setattr(daemon, "daemon_environment", lambda _client: environment)
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    found = tmp_path / "state"
    found.mkdir(mode=0o700)
    return found


def work(state: Path, name: str = "a") -> str:
    return str(state / "work" / "tests" / name)


def copy(runtime: Path, name: str, size: int = SIZE) -> None:
    """A copy as containerd makes it, of a checkpoint whose tar has that size."""
    (runtime / name).mkdir()
    (runtime / name / "pages-1.img").write_bytes(bytes(size - 2048))


def extraction(client: Client, state: Path, name: str = "a") -> extracted.Extraction:
    return extracted.Extraction(client, str(state), work(state, name), SIZE)


def test_the_new_copy_is_removed_whole(client: Client, runtime: Path, state: Path) -> None:
    copy(runtime, "ctrd-checkpoint-old")
    (runtime / "something-else").mkdir()
    with extraction(client, state) as found:
        with found.creating():
            copy(runtime, "ctrd-checkpoint-new")
        assert "ctrd-checkpoint-new" in os.listdir(runtime), "CRIU reads it"
    assert found.warnings == []
    assert sorted(os.listdir(runtime)) == ["ctrd-checkpoint-old", "something-else"]
    assert os.listdir(work(state)) == []


def test_of_two_restores_side_by_side_each_removes_its_own(client: Client, runtime: Path, state: Path) -> None:
    """The second may only begin once the first one's copy is there."""
    inside, go_on = threading.Event(), threading.Event()
    seen: list[list[str]] = []

    def first() -> None:
        with client.another() as own, extraction(own, state, "a") as found, found.creating():
            inside.set()
            assert go_on.wait(30)
            copy(runtime, "ctrd-checkpoint-a")

    def second() -> None:
        with client.another() as own, extraction(own, state, "b") as found:
            with found.creating():
                copy(runtime, "ctrd-checkpoint-b")
            threads[0].join(30)
            seen.append(os.listdir(runtime))

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(30)
    threads[1].start()
    go_on.set()
    threads[1].join(30)
    assert seen == [["ctrd-checkpoint-b"]]
    assert os.listdir(runtime) == []


def test_what_others_make_meanwhile_is_told_apart_by_its_size_and_owner(
    client: Client, runtime: Path, state: Path
) -> None:
    with extraction(client, state) as found, found.creating():
        copy(runtime, "ctrd-checkpoint-new")
        copy(runtime, "ctrd-checkpoint-other-restore", 2 * SIZE)
        (runtime / "ctrd-checkpoint-link").symlink_to("/etc")
        (runtime / "ctrd-checkpoint-file").write_text("")
        (runtime / "ctrd-checkpoint-nobody").mkdir()
        if os.geteuid() == 0:
            os.chown(runtime / "ctrd-checkpoint-nobody", 65534, 65534)
    assert found.warnings == []
    assert "ctrd-checkpoint-new" not in os.listdir(runtime) and len(os.listdir(runtime)) == 4
    assert os.path.isdir("/etc")


def test_of_several_that_may_all_be_ours_none_is_touched(client: Client, runtime: Path, state: Path) -> None:
    with extraction(client, state) as found, found.creating():
        for name in ("ctrd-checkpoint-a", "ctrd-checkpoint-b"):
            copy(runtime, name, 2 * SIZE)
    warnings = found.warnings
    assert len(warnings) == 2 and "ctrd-checkpoint-a" in warnings[0] and "ctrd-checkpoint-b" in warnings[1]
    assert len(os.listdir(runtime)) == 2


def test_the_copy_of_a_run_that_was_killed_is_found_once_it_is_quiet(
    client: Client, runtime: Path, state: Path
) -> None:
    (runtime / "ctrd-checkpoint-old").mkdir()
    killed = extraction(client, state).__enter__()
    with pytest.raises(KeyboardInterrupt), killed.creating():
        copy(runtime, "ctrd-checkpoint-new", SIZE // 2)
        assert not extracted.is_abandoned(work(state))
        assert extracted.remove_abandoned(client, str(state), work(state), sleep=pytest.fail) == []
        assert len(os.listdir(runtime)) == 2, "a run that lives is at it"
        raise KeyboardInterrupt
    os.close(killed._descriptor)
    assert extracted.is_abandoned(work(state))
    clock = Clock()

    def write_on(seconds: float) -> None:
        clock.sleep(seconds)
        if clock() < 5:
            with open(runtime / "ctrd-checkpoint-new" / "pages-1.img", "ab") as stream:
                stream.write(b"more")

    begun = clock()
    assert extracted.remove_abandoned(client, str(state), work(state), clock, write_on) == []
    assert clock() - begun >= 5, "containerd still wrote"
    assert os.listdir(runtime) == ["ctrd-checkpoint-old"]
    assert os.listdir(work(state)) == []


def test_without_a_note_nobody_waits(client: Client, runtime: Path, state: Path) -> None:
    copy(runtime, "ctrd-checkpoint-others")
    assert extracted.remove_abandoned(client, str(state), work(state), sleep=pytest.fail) == []
    assert os.listdir(runtime) == ["ctrd-checkpoint-others"]


def test_after_a_restart_of_the_daemon_old_copies_are_still_old(
    client: Client, runtime: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(runtime, "ctrd-checkpoint-old")
    # Another pid, the same root.
    with subprocess.Popen(["sleep", "60"]) as other:
        with extraction(client, state) as found:
            with found.creating():
                pass
            monkeypatch.setattr(client, "peer_pid", lambda: other.pid)
        other.kill()
    assert os.listdir(runtime) == ["ctrd-checkpoint-old"]


def test_a_copy_that_cannot_be_removed_is_named_and_found_again(
    client: Client, runtime: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda _path, ignore_errors=False: None)
        with extraction(client, state) as found, found.creating():
            copy(runtime, "ctrd-checkpoint-new")
    (warning,) = found.warnings
    assert "ctrd-checkpoint-new" in warning
    assert extracted.remove_abandoned(client, str(state), work(state), sleep=lambda _seconds: None) == []
    assert os.listdir(runtime) == []


def test_without_a_daemon_it_cannot_be_known(fake: FakeContainerd, client: Client, runtime: Path, state: Path) -> None:
    with extraction(client, state) as found:
        with found.creating():
            copy(runtime, "ctrd-checkpoint-new")
        fake.stop()
    with pytest.raises(NodeError) as caught:
        extracted.present(client)
    assert caught.value.code == "daemon_unavailable"
    (warning,) = found.warnings
    assert "not known" in warning
    assert os.listdir(work(state)) == ["extracted.json"], "the next run looks again"
