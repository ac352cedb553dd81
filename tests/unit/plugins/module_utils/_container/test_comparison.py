# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The root's flags come back, and a restored task is compared with the captured one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import task_state
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.task_state import TaskState
from ansible_collections.gpuops.restore.plugins.module_utils._container import comparison, root_flags_worker
from ansible_collections.gpuops.restore.plugins.module_utils._container.comparison import Comparison
from ansible_collections.gpuops.restore.plugins.module_utils._host import task_worker

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another mount namespace is entered as root alone")


@pytest.fixture
def container(tmp_path: Path) -> Iterator[int]:
    """A process whose root is a mount that may be written."""
    root = tmp_path / "root"
    root.mkdir()
    script = f"mount -t tmpfs -o nosuid none {root} && mkdir {root}/proc {root}/old && mount --rbind /proc {root}/proc"
    script += f" && cd {root} && pivot_root . old && echo && read end"
    command = ["unshare", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process that does nothing."""
    with subprocess.Popen(["sh", "-c", "echo; read end"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        # From here on it is called as its program is.
        process.stdout.readline()
        yield process.pid


def options(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").splitlines()
    return next(words[5].split(",") for words in map(str.split, lines) if words[4] == "/")


def made(recorded: TaskState | None, spec: Mapping[str, Any], tmp_path: Path, scripts: bool = False) -> Comparison:
    config = tmp_path / "criu.conf"
    config.write_text("verbosity=4\n", encoding="ascii")
    return Comparison(recorded, spec, str(config), str(tmp_path), scripts)


def mounted(flags: str) -> TaskState:
    return TaskState({"mounts": {"/": {"flags": flags}}})


READ_ONLY = {"root": {"readonly": True}, "linux": {"namespaces": []}}


@needs_root
@pytest.mark.parametrize(
    ("recorded", "spec", "flags"),
    [
        (None, READ_ONLY, {"ro"}),
        (None, {}, set()),
        (mounted("ro,nodev"), {}, {"ro", "nodev"}),
        # It was mounted anew by the container itself.
        (mounted("rw,nosuid"), READ_ONLY, set()),
    ],
)
def test_the_root_has_its_flags_again(
    container: int, recorded: TaskState | None, spec: dict[str, Any], flags: set[str], tmp_path: Path
) -> None:
    before = set(options(container))
    assert before >= {"rw", "nosuid"} and not before & {"ro", "nodev"}
    found = made(recorded, spec, tmp_path)
    assert found.root_flags("web", container) == []
    after = set(options(container))
    assert after & {"ro", "nodev", "noexec"} == flags and "nosuid" in after
    # Once more changes nothing.
    assert found.root_flags("web", container) == [] and set(options(container)) == after


@needs_root
def test_flags_are_those_of_the_directory_that_is_mounted_anew(
    container: int,
) -> None:
    """A task that runs could move its root between two looks, onto a mount whose flags would be taken away."""
    found = root_flags_worker.options(os.open(f"/proc/{container}/root", os.O_RDONLY | os.O_DIRECTORY))
    assert found == ["nosuid"]


def test_the_nodes_own_root_is_left_alone() -> None:
    with pytest.raises(OSError, match="mount namespace"):
        root_flags_worker.give(os.getpid(), ["noexec"])


def test_what_keeps_it_from_being_so_is_said(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    (warning,) = made(None, READ_ONLY, tmp_path).root_flags("web", process.pid)
    assert "root file system of web was mounted ro" in warning and "No such file" in warning


def test_criu_starts_what_does_both(sleeper: int, tmp_path: Path) -> None:
    """In the order of its steps, and what they report is taken."""
    pid = sleeper
    recorded = task_state.seen(task_worker.observe(pid))
    assert recorded is not None
    recorded.kinds["mounts"]["/"]["flags"] = "ro"  # type: ignore[index]
    with made(recorded, {"linux": {"namespaces": []}}, tmp_path, scripts=True) as compared:
        text = (tmp_path / "criu.conf").read_text(encoding="utf-8")
        assert [line for line in text.splitlines() if "script" in line] == [
            f"action-script={tmp_path}/root-flags.sh",
            f"action-script={tmp_path}/state.sh",
        ]
        # What the first would do here is no test's to do.
        script = (tmp_path / "root-flags.sh").read_text(encoding="utf-8")
        assert "= post-restore ]" in script and " ro " in script
        environment = {"CRTOOLS_INIT_PID": str(pid), "PATH": os.environ["PATH"], "CRTOOLS_SCRIPT_ACTION": "pre-resume"}
        subprocess.run([str(tmp_path / "state.sh")], env=environment, check=True)
    found, why = compared.differences(pid)
    assert found is not None and [one.message for one in found] == ["Flags of the mount at / was ro and is rw."]
    assert why == "" and [path.name for path in tmp_path.iterdir()] == ["criu.conf"]


def test_without_scripts_it_is_looked_at_when_it_runs(sleeper: int, tmp_path: Path) -> None:
    pid = sleeper
    recorded = task_state.seen(task_worker.observe(pid))
    assert recorded is not None
    kinds = {kind: dict(subjects) for kind, subjects in recorded.kinds.items()}
    kinds["descriptors"] = {str(pid): {"999": "pipe (read)"}}
    kinds["limits"] = {str(pid): {"Max open files": "1 1"}}
    found, why = made(TaskState(kinds), {"linux": {"namespaces": []}}, tmp_path).differences(pid)
    assert found is not None and [one.kind for one in found] == ["limits"]
    assert why == "The task runs already, so these were not compared: descriptors, processes."
    assert comparison.fails(found, ["mounts"]) == []
    refused = comparison.fails(found, ["all"])
    error = comparison.failure("web", refused)
    assert error.code == "task_differs" and "Max open files" in error.message
    assert error.details["differences"] == [one.result() for one in found]
    assert comparison.warnings("web", found) == [f"Not as it was in web: {found[0].message}"]
    assert len(comparison.warnings("web", found * 9)) == 6


def test_without_a_record_nothing_is_compared(tmp_path: Path) -> None:
    found, why = made(None, {}, tmp_path).differences(os.getpid())
    assert found is None and "does not record" in why
