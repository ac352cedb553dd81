# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The switch for transparent huge pages."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of ``_options.HUGE_PAGES``."""

    DOCUMENTATION = r"""
options:
  huge_pages:
    description:
      - Whether the node's transparent huge pages are V(always) for the seconds of a restore's window, or of a capture while CUDA
        processes leave their GPUs. That is a setting of the whole node, so other workloads are under it for that time.
      - V(auto) leaves that setting alone where no GPU memory is moved. Where it is, 512 MiB or more, it goes by a measurement of a fraction
        of a second, since they halve a restore on one machine and double it on another.
      - With V(auto) and V(always) a restore also gives huge pages to the one process, without that setting, for memory that several
        threads write (C(parallel_memory)) and that fills huge pages wholly, so that it takes no more than it had. It does so as long as they
        are the faster ones for this restore, on Linux 6.1 and later, where the node's setting is V(madvise).
      - V(keep) does neither; V(always) switches the setting in any case, for workloads without GPU too.
      - A guard puts the setting back, also when the module is killed. Where it is V(never), V(auto) respects that.
    type: str
    choices: [auto, always, keep]
    default: auto
"""
