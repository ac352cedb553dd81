# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.gpuops.restore.plugins.module_utils import _options
from ansible_collections.gpuops.restore.plugins.module_utils._core import state_dir


def test_options_and_steps_have_one_root_for_what_is_kept_on_a_node() -> None:
    assert _options.STAGING["staging_dir"]["default"] == state_dir.STATE_ROOT
