# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which run has noted a migration: this one, one that lives, one that has ended, one elsewhere."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from multiprocessing.connection import Connection

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import processes
from ansible_collections.gpuops.restore.plugins.module_utils._migration import controller


def noted(pid: int) -> str:
    """What a run with that pid on this machine would note."""
    return f"{controller.own().split(' ')[0]} {processes.identity(pid)}"


def _tell(end: Connection) -> None:
    end.send(controller.own())


def test_a_run_is_itself_in_its_workers_too() -> None:
    assert controller.own() == noted(os.getpid())
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    worker = context.Process(target=_tell, args=(there,))
    worker.start()
    assert here.recv() == controller.own()
    worker.join()
    assert controller.at_work(controller.own()) == ""


def test_a_run_that_lives_is_at_work_until_it_ends() -> None:
    with subprocess.Popen(["sleep", "600"]) as run:
        text = noted(run.pid)
        assert f"pid {run.pid}" in controller.at_work(text)
        # The operator vouches for other controllers only.
        assert controller.at_work(text, others=True)
        assert controller.at_work(text.rsplit("/", 1)[0] + "/1") == ""
        run.kill()
    assert controller.at_work(text) == ""


def test_nobody_can_tell_of_a_run_elsewhere() -> None:
    elsewhere = f"bastion-2 {controller.own().split(' ')[1]}"
    assert "bastion-2" in controller.at_work(elsewhere)
    assert controller.at_work(elsewhere, others=True) == ""


def test_no_run_outlives_the_boot() -> None:
    host, process = controller.own().split(" ")
    assert controller.at_work(f"{host} another-boot/{process.partition('/')[2]}") == ""


def test_where_nothing_is_known_nobody_is_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert controller.at_work("") == ""
    assert "odd" in controller.at_work("odd")

    def fails(_pid: int) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(processes, "identity", fails)
    assert controller.own() == ""
    assert controller.at_work("bastion-2 boot/1/1") == ""
