# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: receipt_lines
short_description: What captures or restores have come to
version_added: 0.1.0
description:
  - Used by the playbooks C(gpuops.restore.checkpoint) and C(gpuops.restore.restore) at their end.
options:
  _input:
    description:
      - The fact C(checkpoint_node_receipts) or C(restore_node_receipts) of a host.
    type: dict
    required: true
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Say what runs
  ansible.builtin.debug:
    msg: "{{ restore_node_receipts | gpuops.restore.receipt_lines }}"
"""

RETURN = r"""
_value:
  description: A line for each workload.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any, Callable


def receipt_lines(receipts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._window import outcomes

    return outcomes.lines(receipts)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"receipt_lines": receipt_lines}
