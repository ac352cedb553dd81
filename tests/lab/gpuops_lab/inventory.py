# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's view of the lab: keys, ssh options and the inventory's text."""

from __future__ import annotations

import json
import pathlib
import subprocess

from gpuops_lab.config import LabError, Node, ssh_dir, write_atomically

GROUP = "lab"


def make_keys() -> None:
    """A host key for all nodes, a user's key and known_hosts; made once per lab, under its lock."""
    directory = ssh_dir()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("host_ed25519", "id_ed25519"):
        if not (directory / name).exists():
            command = [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "gpuops-lab",
                "-f",
                str(directory / name),
            ]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise LabError(f"ssh-keygen failed: {result.stderr.strip()}")
    host_key = (directory / "host_ed25519.pub").read_text()
    write_atomically(directory / "known_hosts", f"* {host_key}")


def ssh_options(directory: pathlib.Path, keys: pathlib.Path) -> list[str]:
    """Options of ssh for a node whose runtime directory is given."""
    return [
        f"ProxyCommand={directory}/ssh",
        f"UserKnownHostsFile={keys}/known_hosts",
        "GlobalKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
    ]


def host_variables(node: Node) -> dict[str, str]:
    """What Ansible has to know to reach the node; its connection's control socket lies with the node too."""
    return {
        "ansible_host": node.name,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(ssh_dir() / "id_ed25519"),
        "ansible_ssh_common_args": " ".join(f"-o {option}" for option in ssh_options(node.directory, ssh_dir())),
        "ansible_control_path_dir": str(node.directory / "cp"),
        "ansible_python_interpreter": "/usr/bin/python3",
        "gpuops_lab_containerd": node.containerd,
    }


def inventory_text(hosts: dict[str, dict[str, str]]) -> str:
    """An inventory in YAML; JSON's strings are YAML's."""
    lines = ["---", f"{GROUP}:", "  hosts:" if hosts else "  hosts: {}"]
    for name, variables in hosts.items():
        lines.append(f"    {name}:")
        lines += [f"      {key}: {json.dumps(value)}" for key, value in variables.items()]
    return "\n".join(lines) + "\n"
