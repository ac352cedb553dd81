# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A preflight that does not see mounts, so that CRIU meets them: what the child of warm.py calls first."""

from __future__ import annotations

from ansible_collections.gpuops.restore.plugins.module_utils._capture import mounts


def arm() -> None:
    """For this process alone."""
    mounts.unnamed = lambda _mounts, _spec, _root="": []  # type: ignore[assignment]
