# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A network that plugins of CNI make, and take away again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.task_state import TaskState
from ansible_collections.gpuops.restore.plugins.module_utils._container import cni, cni_worker
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError

#: Notes how it is called, and answers; "broken" fails as the specification says.
PLUGIN = """#!/bin/sh
{ echo "$(basename "$0") $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS"; cat; echo; } >> "$(dirname "$0")/calls"
[ "$CNI_COMMAND" = ADD ] || exit 0
case $0 in
    */broken) echo '{"cniVersion":"1.0.0","code":7,"msg":"no address left","details":"in the range"}'; exit 1 ;;
    */quiet) exit 0 ;;
esac
echo '{"cniVersion":"1.0.0","made by":"'"$(basename "$0")"'"}'
"""
OWN = {"type": "network"}


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "plugins"
    directory.mkdir()
    for name in ("first", "second", "broken", "quiet"):
        (directory / name).write_text(PLUGIN, encoding="ascii")
        (directory / name).chmod(0o755)
    monkeypatch.setattr(cni, "DIRECTORIES", ("/nonexistent", str(directory)))
    return directory


def calls(plugins: Path) -> list[tuple[list[str], dict[str, Any]]]:
    """How the plugins were called, and with what configuration."""
    path = plugins / "calls"
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return [(line.split(" "), json.loads(text)) for line, text in zip(lines[::2], lines[1::2])]


def spec(tmp_path: Path, document: Any, network: dict[str, str] | None = None) -> dict[str, Any]:
    path = tmp_path / "net.conflist"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return {"annotations": {labels.CNI: str(path)}, "linux": {"namespaces": [network or OWN]}}


def chain(*kinds: str, **more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": kind, **more} for kind in kinds]}


def network(found: dict[str, Any], recorded: TaskState | None, tmp_path: Path) -> cni.Network:
    return cni.Network("web", "k8s.io", found, recorded, str(tmp_path / "criu.conf"))


def test_in_a_namespace_that_is_there(plugins: Path, tmp_path: Path) -> None:
    """One after another, each with what the ones before have made; deleted the other way round."""
    made = network(spec(tmp_path, chain("first", "quiet", "second"), {**OWN, "path": "/run/netns/x"}), None, tmp_path)
    assert made.script(str(tmp_path)) is None
    made.make(str(tmp_path))
    assert [" ".join(call) for call, _config in calls(plugins)] == [
        "first ADD k8s.io-web eth0 /run/netns/x",
        "quiet ADD k8s.io-web eth0 /run/netns/x",
        "second ADD k8s.io-web eth0 /run/netns/x",
    ]
    configs = [config for _call, config in calls(plugins)]
    assert configs[0] == {"cniVersion": "1.0.0", "name": "net", "type": "first"}
    assert configs[2]["prevResult"]["made by"] == "first"
    assert cni.is_noted(str(tmp_path))
    assert cni.release(str(tmp_path)) == []
    assert [call[:2] for call, _config in calls(plugins)[3:]] == [["second", "DEL"], ["quiet", "DEL"], ["first", "DEL"]]
    assert not cni.is_noted(str(tmp_path)) and cni.release(str(tmp_path)) == []


def test_in_a_namespace_that_criu_makes(plugins: Path, tmp_path: Path) -> None:
    (tmp_path / "criu.conf").write_text("verbosity=4\n", encoding="ascii")
    made = network(spec(tmp_path, chain("first")), None, tmp_path)
    made.make(str(tmp_path))
    assert calls(plugins) == []
    script = made.script(str(tmp_path))
    assert script is not None
    with script:
        environment = {"PATH": os.environ["PATH"], "CRTOOLS_INIT_PID": "77"}
        for step in ("pre-restore", "setup-namespaces"):
            environment["CRTOOLS_SCRIPT_ACTION"] = step
            subprocess.run([str(tmp_path / "cni.sh")], env=environment, check=True)
    assert [" ".join(call) for call, _config in calls(plugins)] == ["first ADD k8s.io-web eth0 /proc/77/ns/net"]
    assert script.report == {"result": {"cniVersion": "1.0.0", "made by": "first"}}


def test_one_that_fails_ends_the_restore_and_leaves_nothing(plugins: Path, tmp_path: Path) -> None:
    (tmp_path / "criu.conf").write_text("", encoding="ascii")
    made = network(spec(tmp_path, chain("first", "broken")), None, tmp_path)
    made.make(str(tmp_path))
    script = made.script(str(tmp_path))
    assert script is not None
    with script:
        step = {"CRTOOLS_SCRIPT_ACTION": "setup-namespaces", "CRTOOLS_INIT_PID": "77", "PATH": os.environ["PATH"]}
        assert subprocess.run([str(tmp_path / "cni.sh")], env=step, check=False).returncode == 1
    error = made.failure(str(script.report["failed"]))
    assert error.code == "cni_failed" and "no address left in the range" in error.message
    assert [call[:2] for call, _config in calls(plugins)[2:]] == [["broken", "DEL"], ["first", "DEL"]]
    with pytest.raises(NodeError) as caught:
        network(spec(tmp_path, chain("broken"), {**OWN, "path": "/run/netns/x"}), None, tmp_path).make(str(tmp_path))
    assert caught.value.code == "cni_failed"


def test_the_device_and_its_addresses_are_asked_for(plugins: Path, tmp_path: Path) -> None:
    assert plugins.is_dir()
    had = {"lo": {}, "net1": {"addresses": "10.1.2.3/24 fd00::3/64"}, "routes": {"default": "over net1"}}
    config = spec(tmp_path, chain("first", capabilities={"ips": True}))["annotations"][labels.CNI]
    found = cni.plan("web", "k8s.io", config, TaskState({"network": had}))
    assert found["interface"] == "net1"
    (plugin,) = found["plugins"]
    assert plugin["config"]["runtimeConfig"] == {"ips": ["10.1.2.3/24", "fd00::3/64"]}
    assert "capabilities" not in plugin["config"]
    # A stranger's record names no path, and nothing that a plugin could not be given.
    for name in ("../../x", "..", "e\0", "\ud800", "e\u00e9", "e\n"):
        strange = TaskState({"network": {name: {"addresses": ""}}})
        assert cni.plan("web", "k8s.io", config, strange)["interface"] == "eth0"
    odd = TaskState({"network": {"net1": {"addresses": "10.1.2.3/24 10.1.2.3/99 --help fd00::3/64 10.0.0.9"}}})
    (plugin,) = cni.plan("web", "k8s.io", config, odd)["plugins"]
    assert plugin["config"]["runtimeConfig"] == {"ips": ["10.1.2.3/24", "fd00::3/64"]}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"container_id": "web"}'])
def test_a_note_that_a_killed_run_has_left_in_part_is_told_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "network.json").write_text(text, encoding="ascii")
    (problem,) = cni.release(str(tmp_path))
    assert "network.json" in problem and "cannot be read" in problem
    assert cni.release(str(tmp_path)) == [] and not cni.is_noted(str(tmp_path))


def test_what_a_plugin_cannot_be_given_is_its_failure(plugins: Path) -> None:
    plan = {
        "container_id": "web",
        "interface": "e\0",
        "path": "/x",
        "plugins": [{"program": str(plugins / "first"), "config": {}}],
    }
    assert len(cni_worker.delete(plan, "")) == 1


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("{", "cni_config_invalid"),
        ("[]", "cni_config_invalid"),
        (chain(), "cni_config_invalid"),
        ({"cniVersion": "1.0.0", "name": "net", "plugins": "first"}, "cni_config_invalid"),
        ({"cniVersion": "1.0.0", "name": "net"}, "cni_config_invalid"),
        ({"name": "net", "type": "first"}, "cni_config_invalid"),
        (chain("absent"), "cni_plugin_missing"),
        (chain("../plugins/first"), "cni_plugin_missing"),
    ],
)
def test_what_cannot_be_used_is_told_before(plugins: Path, tmp_path: Path, document: Any, code: str) -> None:
    (problem,) = cni.problems(spec(tmp_path, document))
    assert problem.code == code and problem.remedy
    assert calls(plugins) == []


def test_a_configuration_of_one_plugin_will_do(plugins: Path, tmp_path: Path) -> None:
    found = spec(tmp_path, {"cniVersion": "1.0.0", "name": "net", "type": "first"})
    assert cni.problems(found) == [] and calls(plugins) == []
    assert cni.problems({"annotations": {}}) == []
    (problem,) = cni.problems({"annotations": {labels.CNI: str(tmp_path / "none")}})
    assert problem.code == "cni_config_invalid"
