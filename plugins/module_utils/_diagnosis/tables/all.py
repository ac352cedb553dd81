# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole diagnosis table. Of entries that match the same line with the same rank, the earlier one wins."""

from __future__ import annotations

from ..entry import Entry
from .files import FILES
from .gpu import GPU
from .kernel import KERNEL
from .mounts import MOUNTS
from .network import NETWORK
from .resources import RESOURCES
from .runtime import RUNTIME

TABLE: tuple[Entry, ...] = GPU + FILES + MOUNTS + NETWORK + RESOURCES + KERNEL + RUNTIME
