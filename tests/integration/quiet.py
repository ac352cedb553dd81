# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs one module with a preflight that does not see mounts, so that CRIU meets them: ``quiet.py MODULE``."""

from __future__ import annotations

import runpy
import sys

from ansible_collections.gpuops.restore.plugins.module_utils._capture import mounts

if __name__ == "__main__":
    mounts.unnamed = lambda _mounts, _spec, _root="": []  # type: ignore[assignment]
    module = sys.argv.pop(1)
    runpy.run_module(f"ansible_collections.gpuops.restore.plugins.modules.{module}", run_name="__main__")
