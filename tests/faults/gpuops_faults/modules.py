# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules run in a node by its warm interpreter: what a fresh one costs is spent once, and not seven times a fault."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import in_node
from gpuops_lab.config import Node
from gpuops_lab.listing import Listing

_HERE = pathlib.Path(__file__).resolve().parents[1]
_FAULT = _HERE / "fault_at.py"
_CALLS = "/run/gpuops-lab/calls"
MODULES = (
    "containerd_checkpoint",
    "containerd_checkpoint_archive",
    "containerd_checkpoint_stage",
    "containerd_container",
    "containerd_image",
    "containerd_leftovers",
    "containerd_restore",
    "containerd_task",
)


@dataclasses.dataclass(frozen=True)
class Run(in_node.Ended):
    """How a module's process ended, or that it was stopped."""

    #: The names of the calls that it has made.
    calls: list[str]

    @property
    def killed(self) -> bool:
        """By SIGKILL, and without a word."""
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == 9 and not self.stdout.strip()

    @property
    def stopped(self) -> bool:
        """It stands still, and is still there."""
        return os.WIFSTOPPED(self.status)


class Interpreter:
    """A node's."""

    def __init__(self, node: Node) -> None:
        self._node = node
        in_node.install(node, _HERE.parents[1])
        shutil.copyfile(_FAULT, node.inside(f"{in_node.LIBRARY}/{_FAULT.name}"))
        self.start()

    def start(self) -> None:
        """Again, after a reboot."""
        in_node.warm_up(self._node, *MODULES, ".fault_at", ".quick_listing")

    def run(self, module: str, options: Mapping[str, Any], fault: str = "none", number: int = 0) -> Run:
        """One module, with that fault at its call of that number; 1 is the first."""
        calls = self._node.inside(_CALLS)
        calls.unlink(missing_ok=True)
        ended = in_node.ask(self._node, module, options, ("fault_at", "arm", fault, number))
        made = calls.read_text(encoding="ascii").split() if calls.exists() else []
        return Run(ended.status, ended.stdout, ended.stderr, made)

    def succeed(self, module: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """A module that has to do its work. Raises AssertionError with what it said."""
        found = self.run(module, options).result
        assert not found.get("failed"), f"{module}: {found.get('msg')}"
        return found

    def listing(self) -> Listing:
        """What there is in the node, as containerd itself says it."""
        return dict(self.run(".quick_listing", {}).result)
