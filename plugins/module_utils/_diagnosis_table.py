# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole diagnosis table. Of entries that match the same line with the same rank, the earlier one wins."""

from __future__ import annotations

from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis_entry import Entry
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis_table_files import FILES
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis_table_gpu import GPU
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis_table_kernel import KERNEL
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis_table_mounts import MOUNTS
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis_table_network import NETWORK
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis_table_resources import RESOURCES
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis_table_runtime import RUNTIME

TABLE: tuple[Entry, ...] = GPU + FILES + MOUNTS + NETWORK + RESOURCES + KERNEL + RUNTIME
