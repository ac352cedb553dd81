# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collector in the node reports and what it leaves out."""

from __future__ import annotations

import os
import pathlib

import pytest
from gpuops_lab import collect


@pytest.mark.parametrize(
    ("path", "reported"),
    [
        ("/run/criu.kdat", False),
        ("/run/gpuops-lab/control.sock", False),
        ("/run/gpuops-restore", False),
        ("/run/gpuops-restore/rates.json", False),
        ("/run/gpuops-restore/capture-rates.json", False),
        ("/run/gpuops-restore/huge-pages", True),
        ("/run/gpuops-restore/cuda", True),
        ("/run/containerd/runc", False),
        ("/run/containerd/runc/k8s.io", False),
        ("/run/containerd/runc/k8s.io/c1", True),
        ("/run/containerd/runc/k8s.io/c1/state.json", True),
        (f"{collect.TASKS}/k8s.io", False),
        (f"{collect.TASKS}/k8s.io/c1", True),
        (f"{collect.TASKS}/k8s.io/c1/exec.pid", False),
        ("/run/containerd/s/0123", True),
        ("/run/netns/x", True),
        ("/run/locker", True),
    ],
)
def test_run(path: str, reported: bool) -> None:
    assert bool(collect.in_run(path, os.stat("/"))) is reported


def test_staging_without_the_evidence() -> None:
    status = os.stat("/")
    assert collect.in_staging(f"{collect.STAGING}/debug", status) == ""
    assert collect.in_staging(f"{collect.STAGING}/debug/x/criu.log", status) == ""
    assert collect.in_staging(f"{collect.STAGING}/debugger", status).startswith(f"{collect.STAGING}/debugger d")


def test_tree_shows_modes_and_contents(tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "a" / "secret"
    secret.parent.mkdir(mode=0o700)
    secret.write_text("one")
    secret.chmod(0o600)
    assert collect.tree(str(tmp_path), collect.with_mode) == [
        f"{secret.parent} drwx------",
        f"{secret} -rw-------",
    ]
    before = collect.tree(str(tmp_path), collect.with_digest)
    secret.write_text("two")
    assert before != collect.tree(str(tmp_path), collect.with_digest)


def test_a_directory_that_is_not_there_is_empty(tmp_path: pathlib.Path) -> None:
    assert collect.tree(str(tmp_path / "none"), collect.with_mode) == []


def test_shims_are_named_by_namespace_and_container() -> None:
    arguments = ["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "c1", "-address", "/a"]
    assert collect.options(arguments) == ["k8s.io", "c1"]
