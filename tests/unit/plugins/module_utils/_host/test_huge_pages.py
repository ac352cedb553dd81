# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The switch for huge pages, on a file that stands in for the kernel's; it has to come back whatever happens."""

from __future__ import annotations

import io
import os
import pathlib
import select
import signal
import subprocess
import sys

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import huge_pages, huge_pages_worker
from ansible_collections.gpuops.restore.plugins.module_utils._host.huge_pages import HugePages

#: Seconds after which a test that waits for what does not come gives up.
LONG = 60.0


class Node:
    """The kernel's file shows brackets around the word that holds; the stand-in's keeps what is written."""

    def __init__(self, directory: pathlib.Path, content: str = "[madvise]") -> None:
        (directory / "kernel").mkdir()
        self.setting = directory / "kernel" / "enabled"
        self.setting.write_text(content)
        self.note = directory / "run" / "huge-pages"

    def pages(self, mode: str) -> HugePages:
        return HugePages(mode, str(self.setting), str(self.note))

    def value(self) -> str:
        return self.setting.read_text().strip("[]")


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "value"), [((1.0, 0.5), "always"), ((1.0, 0.9), "madvise"), ((0.5, 1.0), "madvise")]
)
def test_auto_goes_by_what_is_measured(
    node: Node, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], value: str
) -> None:
    small, huge = seconds
    monkeypatch.setattr(huge_pages_worker, "measure", lambda setting: {"small": small, "huge": huge})
    answers: list[dict[str, object]] = []

    def answered(answer: dict[str, object]) -> None:
        answers.append(answer)
        assert node.value() == value

    # Standard input is at its end: the guard puts back at once.
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    request = {"mode": "auto", "setting": str(node.setting), "note": str(node.note)}
    huge_pages_worker._serve(request, answered)
    assert answers == [{"switched": value == "always", "was": "madvise", "measured": {"small": small, "huge": huge}}]
    assert node.value() == "madvise"


def test_auto_measures_where_it_is_asked(node: Node) -> None:
    with node.pages(huge_pages.AUTO) as pages:
        assert set(pages.report.measured) == {"small", "huge"}
    assert node.value() == "madvise"
    assert not node.note.parent.exists()


@pytest.mark.parametrize(
    ("mode", "size", "begins"),
    [
        ("auto", 0, False),
        ("auto", 1 << 20, False),
        ("auto", 1 << 30, True),
        ("always", 1, True),
        ("keep", 1 << 40, False),
    ],
)
def test_little_memory_is_not_worth_a_look(monkeypatch: pytest.MonkeyPatch, mode: str, size: int, begins: bool) -> None:
    begun: list[str] = []
    monkeypatch.setattr(HugePages, "_begin", lambda self: begun.append(self._mode))
    with huge_pages.for_gpu_memory(mode, size):
        pass
    assert begun == ([mode] if begins else [])


def test_always_switches_and_keep_does_not(node: Node) -> None:
    with node.pages(huge_pages.ALWAYS):
        assert node.value() == "always"
    assert node.value() == "madvise"
    with node.pages(huge_pages.KEEP) as pages:
        assert node.value() == "madvise"
    assert not pages.report.switched
    assert not node.note.parent.exists()


def test_never_is_respected_by_auto(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path, "[never]")
    with node.pages(huge_pages.AUTO) as pages:
        assert node.value() == "never"
    assert not pages.report.switched
    assert pages.report.was == "never"


def test_the_last_of_several_puts_it_back(node: Node) -> None:
    pages, other = node.pages(huge_pages.ALWAYS), node.pages(huge_pages.ALWAYS)
    with other:
        with pages, pages:
            assert node.value() == "always"
        assert node.value() == "always"
    assert node.value() == "madvise"


def test_what_somebody_has_set_since_stays(node: Node) -> None:
    with node.pages(huge_pages.ALWAYS):
        node.setting.write_text("[never]")
    assert node.value() == "never"


def test_a_kill_of_the_module_does_not_keep_it(node: Node) -> None:
    script = (
        "import sys, time\n"
        "from ansible_collections.gpuops.restore.plugins.module_utils._host.huge_pages import HugePages\n"
        "print(HugePages('always', sys.argv[1], sys.argv[2]).__enter__()._guard.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(node.setting), str(node.note)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        guard = os.pidfd_open(int(process.stdout.readline()))
        assert node.value() == "always"
        process.send_signal(signal.SIGKILL)
    assert select.select([guard], [], [], LONG)[0], "the guard ends with its module"
    os.close(guard)
    assert node.value() == "madvise"


def test_where_the_guard_was_killed_too_the_next_run_does_it(node: Node) -> None:
    node.note.parent.mkdir()
    node.note.write_text("never")
    node.setting.write_text("[always]")
    with node.pages(huge_pages.AUTO):
        assert node.value() == "never"
    assert not node.note.parent.exists()


def test_a_node_without_the_switch_goes_on(tmp_path: pathlib.Path) -> None:
    pages = HugePages(huge_pages.ALWAYS, str(tmp_path / "absent"), str(tmp_path / "run" / "note"))
    with pages:
        assert "absent" in pages.report.problem
    assert not pages.report.switched


def test_a_measurement_leaves_the_setting_as_it_was(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages_worker, "_SIZES", {"small": 1 << 20, "huge": 2 << 20})
    found = huge_pages_worker.measure(huge_pages_worker.Setting(str(node.setting)))
    assert set(found) == {"small", "huge"}
    assert all(value > 0 for value in found.values())
    assert node.value() == "madvise"
