# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The switch for huge pages, on a file that stands in for the kernel's; it has to come back whatever happens."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils import _huge_pages, _huge_pages_worker
from ansible_collections.gpuops.restore.plugins.module_utils._huge_pages import HugePages


class Node:
    """The kernel's file shows brackets around the word that holds; the stand-in's keeps what is written."""

    def __init__(self, directory: pathlib.Path, content: str = "[madvise]") -> None:
        self.setting = directory / "enabled"
        self.setting.write_text(content)
        self.run = directory / "run"

    def pages(self, wish: str) -> HugePages:
        return HugePages(wish, str(self.setting), str(self.run))

    def measured(self, small: float, huge: float) -> None:
        self.run.mkdir(exist_ok=True)
        (self.run / "huge-pages-measured").write_text(json.dumps({"small": small, "huge": huge}))

    def value(self) -> str:
        return self.setting.read_text().strip("[]")


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize(
    ("small", "huge", "value"), [(1.0, 0.5, "always"), (1.0, 0.9, "madvise"), (0.5, 1.0, "madvise")]
)
def test_auto_goes_by_what_was_measured(node: Node, small: float, huge: float, value: str) -> None:
    node.measured(small, huge)
    with node.pages(_huge_pages.AUTO) as pages:
        assert node.value() == value
        assert pages.report.switched == (value == "always")
        assert pages.report.measured == {"small": small, "huge": huge}
    assert node.value() == "madvise"


def test_always_switches_and_keep_does_not(node: Node) -> None:
    with node.pages(_huge_pages.ALWAYS):
        assert node.value() == "always"
    assert node.value() == "madvise"
    with node.pages(_huge_pages.KEEP) as pages:
        assert node.value() == "madvise"
    assert not pages.report.switched
    assert not (node.run / "huge-pages-original").exists()


def test_never_is_respected_by_auto(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path, "[never]")
    node.measured(1.0, 0.1)
    with node.pages(_huge_pages.AUTO) as pages:
        assert node.value() == "never"
    assert not pages.report.switched
    assert pages.report.was == "never"


def test_the_last_of_several_puts_it_back(node: Node) -> None:
    pages, other = node.pages(_huge_pages.ALWAYS), node.pages(_huge_pages.ALWAYS)
    with other:
        with pages, pages:
            assert node.value() == "always"
        assert node.value() == "always"
    assert node.value() == "madvise"


def test_what_somebody_has_set_since_stays(node: Node) -> None:
    with node.pages(_huge_pages.ALWAYS):
        node.setting.write_text("[never]")
    assert node.value() == "never"


def test_a_kill_of_the_module_does_not_keep_it(node: Node) -> None:
    script = (
        "import sys, time\n"
        "from ansible_collections.gpuops.restore.plugins.module_utils._huge_pages import HugePages\n"
        "HugePages('always', sys.argv[1], sys.argv[2]).__enter__()\n"
        "print('switched', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(node.setting), str(node.run)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout and process.stdout.readline() == "switched\n"
        assert node.value() == "always"
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while node.value() != "madvise" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert node.value() == "madvise"


def test_where_the_guard_was_killed_too_the_next_run_does_it(node: Node) -> None:
    node.run.mkdir()
    (node.run / "huge-pages-original").write_text("madvise")
    node.setting.write_text("[always]")
    node.measured(1.0, 1.0)
    with node.pages(_huge_pages.AUTO):
        assert node.value() == "madvise"
    assert not (node.run / "huge-pages-original").exists()


def test_a_node_without_the_switch_goes_on(tmp_path: pathlib.Path) -> None:
    pages = HugePages(_huge_pages.ALWAYS, str(tmp_path / "absent"), str(tmp_path / "run"))
    with pages:
        assert "absent" in pages.report.problem
    assert not pages.report.switched


def test_a_measurement_leaves_the_setting_as_it_was(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_huge_pages_worker, "_SAMPLE", 2 << 20)
    found = _huge_pages_worker.measure(_huge_pages_worker.Setting(str(node.setting)))
    assert set(found) == {"small", "huge"}
    assert all(value > 0 for value in found.values())
    assert node.value() == "madvise"
