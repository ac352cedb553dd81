# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory's text and the names that become paths."""

from __future__ import annotations

import pathlib

import pytest
import yaml
from gpuops_lab import config, inventory


def test_text_is_yaml_that_ansible_reads() -> None:
    text = inventory.inventory_text({"node1": {"ansible_host": "node1", "ansible_ssh_common_args": '-o A="b: c" # d'}})
    assert yaml.safe_load(text) == {
        "lab": {"hosts": {"node1": {"ansible_host": "node1", "ansible_ssh_common_args": '-o A="b: c" # d'}}}
    }


def test_text_without_hosts() -> None:
    assert yaml.safe_load(inventory.inventory_text({})) == {"lab": {"hosts": {}}}


def test_host_is_reached_by_its_own_script_and_checked_by_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUOPS_LAB_RUN", "/r")
    variables = inventory.host_variables(config.Node("a1", "1.7", "id", ("/root",)))
    assert "-o ProxyCommand=/r/nodes/a1/ssh" in variables["ansible_ssh_common_args"]
    assert "-o StrictHostKeyChecking=yes" in variables["ansible_ssh_common_args"]
    assert "-o UserKnownHostsFile=/r/ssh/known_hosts" in variables["ansible_ssh_common_args"]
    assert variables["ansible_control_path_dir"] == "/r/nodes/a1/cp"


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "a-", ".x", "a b", "a\n"])
def test_names_that_could_leave_the_labs_directory_are_refused(name: str) -> None:
    with pytest.raises(config.LabError, match="no node name"):
        config.check_name(name)


def test_record_of_a_node_is_read_back(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("GPUOPS_LAB_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("GPUOPS_LAB_DATA", str(tmp_path / "data"))
    node = config.Node("a1", "1.6", "word", ("/top", "/root"))
    node.directory.mkdir(parents=True)
    node.save()
    assert config.load_node("a1") == node
    assert node.pid == 0
    (tmp_path / "data" / "half-made").mkdir(parents=True)
    assert config.all_names() == ["a1", "half-made"]
    assert config.all_nodes() == [node]
    with pytest.raises(config.LabError, match="no node half-made"):
        config.load_node("half-made")
