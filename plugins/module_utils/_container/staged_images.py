# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The staged files of a checkpoint as CRIU reads them for a container."""

from __future__ import annotations

import os
from collections.abc import Iterable

from .._checkpoint import reader as checkpoint_reader, staged as staged_checkpoint
from .._checkpoint.reader import Checkpoint
from .._core.errors import InputError
from .task_params import TaskParams


def directory_of(params: TaskParams, checkpoint: Checkpoint) -> str:
    """Raises InputError ``checkpoint_not_staged``, ``node_checkpoint_gone``."""
    staged = staged_checkpoint.find(params.staging_dir, checkpoint.key)
    if staged is not None:
        return staged.directory
    if checkpoint.on_node:
        raise checkpoint_reader.gone(checkpoint, params.staging_dir)
    raise InputError(
        "checkpoint_not_staged",
        f"The CRIU images of {checkpoint.name} ({checkpoint.digest}) are not staged below {params.staging_dir}.",
        "Run containerd_checkpoint_stage first, with the same staging_dir.",
    )


def hand_over(directories: Iterable[str], group: int) -> None:
    """Let CRIU read its images once it is in the container's user namespace, where it is root for that alone.

    It opens them relative to their directory, some before its user is mapped, when it is the host's root without any
    capability ("Unable to open timens-0.img: Permission denied" if they are not root's), some after it ("tty-info.img",
    with CRIU 4.2.1; ctr's restore fails so, too): so they are root's still, and for the mapped group to read.
    The directories above stay root's alone, so that nobody else comes to them by a path.
    """
    for directory in directories:
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            os.chown(path, -1, group, follow_symlinks=False)
            os.chmod(path, 0o640)
        os.chown(directory, -1, group, follow_symlinks=False)
        os.chmod(directory, 0o750)
