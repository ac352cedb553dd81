# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: node_problems
short_description: What a node lacks
version_added: 0.1.0
description:
  - Used by the playbook C(gpuops.restore.prepare), after it has brought what it can.
options:
  _input:
    description:
      - The answer of M(gpuops.restore.containerd_info).
    type: dict
    required: true
  gpu:
    description:
      - The answer of M(gpuops.restore.cuda_process_info) on a node with NVIDIA's driver, else empty.
    type: dict
    required: true
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Stop where something lacks
  ansible.builtin.fail:
    msg: "{{ info | gpuops.restore.node_problems({}) }}"
  when: info | gpuops.restore.node_problems({}) | length > 0
"""

RETURN = r"""
_value:
  description: Sentences with remedies; empty where nothing lacks.
  type: list
  elements: str
"""

from typing import Any, Callable


def node_problems(info: Any, gpu: Any) -> list[str]:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._window import preparation

    return preparation.problems(info, gpu)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"node_problems": node_problems}
