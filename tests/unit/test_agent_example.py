# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""examples/agent: image, manifest and inventory speak of the same paths and names, and the pod may enter the host."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "agent"


@pytest.fixture
def manifest() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLE / "daemonset.yml").read_text())
    return found


@pytest.fixture
def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return found


@pytest.fixture
def variables() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLE / "inventory/agents.yml").read_text())["gpu_nodes"]["vars"]
    return found


def assigned(script: str, name: str) -> str:
    """What a script of the agent sets that variable to."""
    (found,) = re.findall(rf"^{name}=(\S+)", (EXAMPLE / script).read_text(), re.MULTILINE)
    return str(found)


def test_the_pod_may_enter_the_host(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    assert (pod["hostPID"], pod["hostNetwork"], container["securityContext"]) == (True, True, {"privileged": True})
    assert "limits" not in container["resources"]


def test_it_mounts_just_what_it_brings_to_the_host_and_at_the_same_path(pod: dict[str, Any]) -> None:
    (volume,), (container,) = pod["volumes"], pod["containers"]
    host = assigned("agent", "host")
    assert volume == {"name": "environment", "hostPath": {"path": host, "type": "DirectoryOrCreate"}}
    assert container["volumeMounts"] == [{"name": "environment", "mountPath": host}]


def test_ansible_uses_what_is_brought(variables: dict[str, Any]) -> None:
    host = assigned("agent", "host")
    script = (EXAMPLE / "agent").read_text()
    shell, python = variables["ansible_shell_executable"], variables["ansible_python_interpreter"]
    assert (shell, python) == (f"{host}/host-shell", f"{host}/python/bin/python3")
    for path in (shell, python):
        assert path.replace(host, "$host") in script, path
    assert variables["restore_node_dependency_source"] == "none"
    # The host may have no sudo.
    assert variables["ansible_become"] is False


def test_all_that_ansible_runs_meets_the_host() -> None:
    """Modules look at the node's files, programs, mounts, processes, network and control groups."""
    (entering,) = re.findall(r"nsenter --target 1 (.*) -- /bin/sh", (EXAMPLE / "host-shell").read_text())
    assert set(entering.split()) == {"--mount", "--uts", "--ipc", "--net", "--cgroup"}


def test_inventory_and_guide_name_the_pod_as_the_manifest_does(
    manifest: dict[str, Any], pod: dict[str, Any], variables: dict[str, Any]
) -> None:
    guide = (ROOT / "docs/agent.md").read_text()
    namespace = manifest["metadata"]["namespace"]
    assert variables["ansible_connection"] == "kubernetes.core.kubectl"
    assert variables["ansible_kubectl_namespace"] == namespace
    assert variables["ansible_kubectl_container"] == pod["containers"][0]["name"]
    assert f"kubectl create namespace {namespace}\n" in guide
    (label,) = manifest["spec"]["selector"]["matchLabels"].items()
    assert manifest["spec"]["template"]["metadata"]["labels"] == dict([label])
    assert f"kubectl -n {namespace} get pods -l {label[0]}={label[1]} " in guide


def test_the_recipe_puts_things_where_the_agent_looks_for_them() -> None:
    recipe = (EXAMPLE / "Containerfile").read_text()
    assert f"COPY --from=environment /environment {assigned('agent', 'image')}\n" in recipe
    for name in ("python", "digest", "host-shell"):
        assert f"$image/{name}" in (EXAMPLE / "agent").read_text(), name
        assert f"/environment/{name}" in recipe, name
    # What it copies of this tree is there.
    copied = re.findall(r"^COPY (?:--chmod=\S+ )?([a-z]\S*) ", recipe, re.MULTILINE)
    assert sorted(copied) == ["examples/agent/agent", "examples/agent/host-shell", "requirements"]
    assert all((ROOT / path).exists() for path in copied)
