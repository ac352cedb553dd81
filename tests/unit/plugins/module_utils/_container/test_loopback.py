# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which containers come back with their loopback down, and what brings it up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._container import loopback, loopback_worker
from ansible_collections.gpuops.restore.plugins.module_utils._container.loopback import Loopback


@pytest.mark.parametrize(
    ("network", "down"),
    [
        ({"type": "network"}, True),
        ({"type": "network", "path": "/run/netns/gpuops-restore-tests--web"}, True),
        # As earlier releases named it.
        ({"type": "network", "path": "/run/netns/gpuops-restore-web"}, True),
        ({"type": "network", "path": "/run/netns/gpuops-restore-other"}, False),
        ({"type": "network", "path": "/run/netns/pod"}, False),
        ({"type": "network", "path": "/proc/1/ns/net"}, False),
        ({"type": "ipc"}, False),
    ],
)
def test_only_a_network_of_its_own(network: dict[str, Any], down: bool) -> None:
    assert loopback.is_down({"linux": {"namespaces": [{"type": "pid"}, network]}}, "tests", "web") is down
    assert loopback.is_down({}, "tests", "web") is False


@pytest.fixture
def namespace() -> Iterator[int]:
    """A process in a network namespace of its own, with the user namespace that it takes without root."""
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def is_up(pid: int) -> bool:
    """Whether a packet that a process of the namespace sends to 127.0.0.1 arrives."""
    program = (
        "import socket\n"
        "one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "one.bind(('127.0.0.1', 0))\n"
        "one.sendto(b'x', one.getsockname())\n"
        "one.recv(1)\n"
    )
    return inside(pid, [sys.executable, "-c", program]).returncode == 0


def inside(pid: int, command: list[str]) -> subprocess.CompletedProcess[bytes]:
    enter = ["nsenter", "--target", str(pid), "--user", "--preserve-credentials", "--net"]
    return subprocess.run([*enter, *command], capture_output=True, check=False)


def test_it_is_up_afterwards(namespace: int, tmp_path: Path) -> None:
    assert not is_up(namespace)
    report = tmp_path / "report.json"
    done = inside(namespace, [sys.executable, "-I", "-S", loopback_worker.__file__, str(report), str(namespace)])
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(report.read_text(encoding="utf-8")) == {"up": True}
    assert is_up(namespace)


def test_what_fails_is_reported_and_fails_nothing(tmp_path: Path) -> None:
    config = tmp_path / "criu.conf"
    config.write_text("verbosity=4\n", encoding="utf-8")
    with Loopback(str(config), str(tmp_path)) as armed:
        environment = {"CRTOOLS_SCRIPT_ACTION": "setup-namespaces", "CRTOOLS_INIT_PID": "0", "PATH": os.environ["PATH"]}
        subprocess.run([str(tmp_path / "loopback.sh")], env=environment, check=True)
    assert "No such file" in armed.failed
    assert armed.failed in loopback.warning("web", armed.failed)
    with Loopback(str(config), str(tmp_path)) as armed:
        pass
    assert "not started" in armed.failed
    assert [path.name for path in tmp_path.iterdir()] == ["criu.conf"]
