# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signs of life of a long call."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of ``_options.PROGRESS``."""

    DOCUMENTATION = r"""
options:
  progress:
    description:
      - Seconds after which, and then again each time, a line for each workload tells on the controller how far a call is that lasts
        so long - its phase, and where they are known bytes, rate and time left. V(0) for none.
      - The module notes it in a file below C(/run/gpuops-restore/progress) on the node, which only its user can read and which goes
        with the call. The controller reads that over the connection that it has; over SSH without C(ControlPersist), where it
        would have to open another one each time, it does not. Neither does it in check mode or with C(no_log).
    type: int
    default: 15
  progress_id:
    description:
      - The name of that file. The action plugin of the collection gives one; there is no need to.
    type: str
"""
