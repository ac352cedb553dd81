# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core import state_dir
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError


def test_names_of_a_container(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert state_dir.work_dir(root, "k8s.io", "train") == f"{root}/work/k8s.io/train"
    assert state_dir.criu_config(root, "k8s.io", "train") == f"{root}/work/k8s.io/train/criu.conf"
    assert state_dir.restore_log(root, "k8s.io", "train") == f"{root}/work/k8s.io/train/restore.log"


@pytest.mark.parametrize(
    ("user", "own", "expected"),
    [(0, "/mine", "/run/x"), (7, "/mine", "/mine/x"), (7, "", "/run/user/7/x")],
)
def test_what_does_not_outlive_the_boot_lies_below_run(
    user: int, own: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", own)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert state_dir.runtime_dir("capture") == expected.replace("/x", "/gpuops-restore/capture")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "../x"])
def test_a_name_never_leads_out_of_the_root(name: str) -> None:
    for arguments in ((name, "train"), ("k8s.io", name)):
        with pytest.raises(InputError) as caught:
            state_dir.work_dir("/root", *arguments)
        assert caught.value.code == "name_invalid"


@pytest.mark.parametrize("slash", ["", "/"])
def test_what_is_made_is_private_and_goes_again(tmp_path: Path, slash: str) -> None:
    root = f"{tmp_path}/state{slash}"
    work = state_dir.work_dir(root, "k8s.io", "train")
    old_mask = os.umask(0)
    try:
        state_dir.make_private(work, root)
        state_dir.make_private(work, root)
    finally:
        os.umask(old_mask)
    for directory in (work, os.path.dirname(work), f"{tmp_path}/state/work", f"{tmp_path}/state"):
        assert os.stat(directory).st_mode & 0o777 == 0o700
    Path(work, "criu.conf").touch()
    assert state_dir.remove_work(root, "k8s.io", "train") is True
    assert os.listdir(tmp_path) == []
    assert state_dir.remove_work(root, "k8s.io", "train") is False


def test_only_what_is_empty_goes(tmp_path: Path) -> None:
    root = str(tmp_path / "state")
    for name in ("train", "other"):
        state_dir.make_private(state_dir.work_dir(root, "k8s.io", name), root)
    assert state_dir.remove_work(root, "k8s.io", "train") is True
    assert os.listdir(f"{root}/work/k8s.io") == ["other"]


def test_nothing_above_the_root_goes(tmp_path: Path) -> None:
    root = str(tmp_path / "above" / "state")
    state_dir.make_private(state_dir.work_dir(root, "k8s.io", "train"), root)
    state_dir.remove_work(root, "k8s.io", "train")
    assert os.listdir(tmp_path) == ["above"]
    state_dir.prune(str(tmp_path / "above"), root)
    assert os.listdir(tmp_path) == ["above"]


def test_a_dangling_link_is_something(tmp_path: Path) -> None:
    os.symlink("nowhere", tmp_path / "link")
    assert state_dir.exists(str(tmp_path / "link")) is True
    assert state_dir.exists(str(tmp_path / "none")) is False


def test_a_text_or_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("ü", encoding="utf-8")
    assert state_dir.read_text(str(tmp_path / "file")) == "ü"
    assert state_dir.read_text(str(tmp_path / "none")) is None


def test_a_directory_that_another_run_makes_and_prunes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [FileExistsError(17, "made by another run, and pruned since")]
    make = os.mkdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        if others:
            raise others.pop()
        make(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    state_dir.make_private(str(tmp_path / "state" / "locks"), str(tmp_path / "state"))
    assert os.path.isdir(tmp_path / "state" / "locks")


@pytest.mark.parametrize("dangling", [False, True])
def test_what_is_no_directory_stays_in_the_way(tmp_path: Path, dangling: bool) -> None:
    if dangling:
        os.symlink("nowhere", tmp_path / "state")
    else:
        (tmp_path / "state").touch()
    with pytest.raises((FileExistsError, NotADirectoryError)):
        state_dir.make_private(str(tmp_path / "state"), str(tmp_path / "state"))
