# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A network that a command of the operator makes, and takes away again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._container import (
    cni,
    network,
    network_command,
    network_command_worker,
)
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError

#: Notes how it is called; fails where it is told to.
PROGRAM = """#!/bin/sh
env | grep ^GPUOPS_ | grep -v ^GPUOPS_CACHE | sort | tr '\\n' ' ' >> "$(dirname "$0")/calls"
echo "$*" >> "$(dirname "$0")/calls"
[ "$1 $GPUOPS_RESTORE_ACTION" != "fail make" ] || { echo some words; echo no bridge >&2; exit 3; }
[ "$1" != always ] || exit 4
"""
OWN = {"type": "network"}


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "bin" / "net"
    path.parent.mkdir()
    path.write_text(PROGRAM, encoding="ascii")
    path.chmod(0o755)
    (tmp_path / "criu.conf").write_text("verbosity=4\n", encoding="ascii")
    return str(path)


def calls(program: str) -> list[str]:
    """The environment that it is given, and its arguments."""
    path = Path(program).parent / "calls"
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return [line.replace("GPUOPS_RESTORE_", "") for line in lines]


def spec(command: list[str], entry: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {},
        "annotations": {labels.NETWORK_COMMAND: json.dumps(command)},
        "linux": {"namespaces": [entry or OWN]},
    }


def made(found: dict[str, Any], tmp_path: Path) -> network_command.Network:
    return network_command.Network("web", "k8s.io", found, str(tmp_path / "criu.conf"))


def start(script: Path, step: str) -> int:
    """As CRIU does it, with its own environment."""
    environment = {"PATH": os.environ["PATH"], "CRTOOLS_INIT_PID": "77", "CRTOOLS_SCRIPT_ACTION": step}
    return subprocess.run([str(script)], env=environment, check=False).returncode


def test_in_a_namespace_that_criu_makes(program: str, tmp_path: Path) -> None:
    found = made(spec([program, "a b", "$HOME"]), tmp_path)
    found.make(str(tmp_path))
    assert calls(program) == [] and network.is_noted(str(tmp_path))
    script = found.script(str(tmp_path))
    assert script is not None
    with script:
        for step in ("pre-restore", "setup-namespaces"):
            assert start(tmp_path / "network-command.sh", step) == 0
    assert script.report == {"made": True}
    assert network.release(str(tmp_path)) == []
    assert calls(program) == [
        "ACTION=make CONTAINER=web NAMESPACE=k8s.io NETNS=/proc/77/ns/net a b $HOME",
        "ACTION=remove CONTAINER=web NAMESPACE=k8s.io NETNS= a b $HOME",
    ]
    assert not network.is_noted(str(tmp_path)) and network.release(str(tmp_path)) == []


def test_in_a_namespace_that_is_there(program: str, tmp_path: Path) -> None:
    found = made(spec([program], {**OWN, "path": "/run/netns/x"}), tmp_path)
    assert found.script(str(tmp_path)) is None
    found.make(str(tmp_path))
    assert calls(program) == ["ACTION=make CONTAINER=web NAMESPACE=k8s.io NETNS=/run/netns/x "]


def test_one_that_fails_ends_the_restore_and_takes_away_what_it_made(program: str, tmp_path: Path) -> None:
    found = made(spec([program, "fail"]), tmp_path)
    found.make(str(tmp_path))
    script = found.script(str(tmp_path))
    assert script is not None
    with script:
        assert start(tmp_path / "network-command.sh", "setup-namespaces") == 1
    error = found.failure(str(script.report["failed"]))
    assert error.code == "network_command_failed" and error.remedy
    assert f"The command {program} has not made the network of web: it ended with exit status 3: " in error.message
    assert "some words no bridge" in error.message
    assert [call.split()[0] for call in calls(program)] == ["ACTION=make", "ACTION=remove"]
    with pytest.raises(NodeError) as caught:
        made(spec([program, "always"], {**OWN, "path": "/run/netns/x"}), tmp_path).make(str(tmp_path))
    assert "exit status 4; with GPUOPS_RESTORE_ACTION=remove it ended with exit status 4" in caught.value.message


def test_one_that_does_not_end_is_ended_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    script = f'[ "$GPUOPS_RESTORE_ACTION" = make ] || exit 0; exec 3>{told}; echo begun >&3; sleep 600 & wait'
    ends: list[int] = []

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        """Its time is over when it has begun."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout and not ends:
                ends.append(os.open(told, os.O_RDONLY))
                assert os.read(ends[0], 100) == b"begun\n"
                raise subprocess.TimeoutExpired("net", timeout)
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    plan = {"command": ["/bin/sh", "-c", script], "environment": {}}
    with pytest.raises(network_command_worker.CommandError, match="did not end within 7 s"):
        network_command_worker.make(plan, "", seconds=7)
    # Nobody has the other end any more, which the sleeping one had, too.
    assert os.read(ends[0], 100) == b""
    os.close(ends[0])


def test_one_that_cannot_be_run(tmp_path: Path) -> None:
    for command in (["/nonexistent/net"], ["/bin/sh", "\0"]):
        plan = {"command": command, "environment": {}}
        with pytest.raises(network_command_worker.CommandError):
            network_command_worker.make(plan, "")
    (problem,) = network.problems(spec(["/nonexistent/net"]))
    assert problem.code == "network_command_missing" and "/nonexistent/net" in problem.message
    (problem,) = network.problems(spec([str(tmp_path)]))
    assert problem.code == "network_command_missing"
    assert network.problems(spec(["/bin/sh"])) == network.problems({"annotations": {}}) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"command": []}'])
def test_a_note_that_a_killed_run_has_left_in_part_is_told_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "network-made.json").write_text(text, encoding="ascii")
    (problem,) = network.release(str(tmp_path))
    assert "network-made.json" in problem and "cannot be read" in problem
    assert network.release(str(tmp_path)) == [] and not network.is_noted(str(tmp_path))


def test_who_makes_it(program: str, tmp_path: Path) -> None:
    config = str(tmp_path / "criu.conf")
    assert network.of("web", "k8s.io", {"linux": {"namespaces": [OWN]}}, None, config, "CRIU is old") is None
    found = network.of("web", "k8s.io", spec([program]), None, config, None)
    assert isinstance(found, network_command.Network)
    # In one that is there CRIU starts nothing.
    there = spec([program], {**OWN, "path": "/run/netns/x"})
    assert isinstance(network.of("web", "k8s.io", there, None, config, "CRIU is old"), network_command.Network)
    with pytest.raises(NodeError) as caught:
        network.of("web", "k8s.io", spec([program]), None, config, "CRIU is old")
    assert caught.value.code == "network_command_failed" and "CRIU is old" in caught.value.message
    by_cni = {**spec([]), "annotations": {labels.CNI: "/etc/cni/net.d/x.conflist"}}
    with pytest.raises(NodeError) as caught:
        network.of("web", "k8s.io", by_cni, None, config, "CRIU is old")
    assert caught.value.code == "cni_failed"
    assert cni.config_of(by_cni) and network_command.command_of(by_cni) == []


@pytest.mark.parametrize("text", ["{", '"x"', "[1]", "null"])
def test_what_is_no_list_of_words_is_none(text: str) -> None:
    assert network_command.command_of({"annotations": {labels.NETWORK_COMMAND: text}}) == []
