# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container needs on the node outside of containerd: its CRIU configuration and, rarely, a network namespace."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from .._core import state_dir
from .._criu import config as criu_config_file
from . import netns


@dataclass(frozen=True)
class Files:
    """These files of one container."""

    container_id: str
    staging_dir: str
    #: containerd's.
    namespace: str
    #: The text of the configuration.
    criu_config: str
    own_netns: bool

    @property
    def _config_path(self) -> str:
        return state_dir.criu_config(self.staging_dir, self.namespace, self.container_id)

    def planned_paths(self) -> tuple[str, ...]:
        """What :meth:`make` makes and a check of the node therefore need not find."""
        return (netns.path(self.container_id),) if self.own_netns else ()

    def planned_actions(self) -> list[str]:
        """What :meth:`make` would do, as actions."""
        found = []
        if state_dir.read_text(self._config_path) != self.criu_config:
            found.append("write the CRIU configuration")
        if self.own_netns and not netns.exists(self.container_id):
            found.append(f"make the network namespace {netns.path(self.container_id)}")
        return found

    def make(self) -> None:
        """Make what is missing."""
        state_dir.make_private(os.path.dirname(self._config_path), self.staging_dir)
        criu_config_file.write(self._config_path, self.criu_config)
        if self.own_netns and not netns.exists(self.container_id):
            netns.make(self.container_id)

    def undo(self) -> Callable[[], None]:
        """What takes away again what :meth:`make`, called after this, will have made, and no more."""
        keep_work = state_dir.exists(state_dir.work_dir(self.staging_dir, self.namespace, self.container_id))
        keep_netns = not self.own_netns or netns.exists(self.container_id)

        def act() -> None:
            if not keep_work:
                state_dir.remove_work(self.staging_dir, self.namespace, self.container_id)
            if not keep_netns:
                netns.remove(self.container_id)

        return act
