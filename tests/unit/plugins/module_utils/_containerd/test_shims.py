# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import daemon, shims
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import UNKNOWN, NodeError, RestoreError
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

SHIM = "/usr/bin/containerd-shim-runc-v2"


def process(proc: Path, pid: int, *words: str) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cmdline").write_bytes("".join(f"{word}\0" for word in words).encode())


def test_only_the_shims_of_this_container_are_found(tmp_path: Path) -> None:
    process(tmp_path, 10, SHIM, "-namespace", "k8s.io", "-id", "train", "-address", "/run/c.sock")
    process(tmp_path, 11, SHIM, "-namespace", "default", "-id", "train", "-address", "/run/c.sock")
    process(tmp_path, 12, SHIM, "-namespace", "k8s.io", "-id", "train-2", "-address", "/run/c.sock")
    process(tmp_path, 13, "/usr/bin/vi", "-namespace", "k8s.io", "-id", "train")
    process(tmp_path, 14)
    process(tmp_path, 15, "/opt/containerd-shim-other-v1", "-id", "train", "-debug", "-namespace", "k8s.io", "start")
    (tmp_path / "16").mkdir()  # it ended meanwhile
    (tmp_path / "self").mkdir()
    assert sorted(shims.pids("k8s.io", "train", str(tmp_path))) == [10, 15]


def test_none_is_gone_at_once() -> None:
    shims.require_gone("tests", "no-such-container")
    shims.end_orphans("tests", "no-such-container")


def test_a_shim_that_ends_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [[7], [7], []]
    monkeypatch.setattr(shims, "pids", lambda *_names: answers.pop(0))
    shims.require_gone("k8s.io", "train")
    assert answers == []


def test_a_shim_that_stays_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shims, "pids", lambda *_names: [7, 8])
    monkeypatch.setattr(shims, "_SECONDS", 0.05)
    with pytest.raises(RestoreError) as caught:
        shims.require_gone("k8s.io", "train")
    assert (caught.value.code, caught.value.outcome) == ("shim_left", UNKNOWN)
    assert "7, 8" in caught.value.message and "train" in caught.value.message


# --- extracted checkpoints


@pytest.fixture
def runtime(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The daemon's directory for temporary files; the daemon is this very process."""
    found = tmp_path / "runtime"
    found.mkdir()
    environment = {"PATH": "", "XDG_RUNTIME_DIR": str(found)}
    monkeypatch.setattr(daemon, "daemon_environment", lambda _client: environment)
    return found


def test_the_one_new_copy_is_removed_whole(client: Client, runtime: Path) -> None:
    (runtime / "ctrd-checkpoint-old").mkdir()
    (runtime / "something-else").mkdir()
    before = shims.extracted_checkpoints(client)
    assert f"/proc/{os.getpid()}/root{runtime}/ctrd-checkpoint-old" in before
    (runtime / "ctrd-checkpoint-new").mkdir()
    (runtime / "ctrd-checkpoint-new" / "pages-1.img").write_bytes(b"memory")
    assert shims.remove_extracted(client, before) == []
    assert sorted(os.listdir(runtime)) == ["ctrd-checkpoint-old", "something-else"]
    assert shims.remove_extracted(client, before) == []


def test_of_several_new_copies_none_is_touched_and_all_are_named(client: Client, runtime: Path) -> None:
    before = shims.extracted_checkpoints(client)
    for name in ("ctrd-checkpoint-a", "ctrd-checkpoint-b"):
        (runtime / name).mkdir()
    warnings = shims.remove_extracted(client, before)
    assert len(warnings) == 2 and "ctrd-checkpoint-a" in warnings[0] and "ctrd-checkpoint-b" in warnings[1]
    assert len(os.listdir(runtime)) == 2


def test_after_a_restart_of_the_daemon_old_copies_are_still_old(client: Client, runtime: Path) -> None:
    (runtime / "ctrd-checkpoint-old").mkdir()
    before = frozenset(
        path.replace(f"/proc/{os.getpid()}/", "/proc/99999999/") for path in shims.extracted_checkpoints(client)
    )
    assert shims.remove_extracted(client, before) == []
    assert os.listdir(runtime) == ["ctrd-checkpoint-old"]


def test_a_copy_that_cannot_be_removed_is_named(client: Client, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shims.extracted_checkpoints(client)
    (runtime / "ctrd-checkpoint-new").mkdir()
    monkeypatch.setattr(shutil, "rmtree", lambda _path, ignore_errors=False: None)
    (warning,) = shims.remove_extracted(client, before)
    assert "ctrd-checkpoint-new" in warning


def test_without_a_daemon_it_cannot_be_known(fake: FakeContainerd, client: Client, runtime: Path) -> None:
    before = shims.extracted_checkpoints(client)
    fake.stop()
    with pytest.raises(NodeError) as caught:
        shims.extracted_checkpoints(client)
    assert caught.value.code == "daemon_unavailable"
    (warning,) = shims.remove_extracted(client, before)
    assert "not known" in warning
