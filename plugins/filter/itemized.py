# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: itemized
short_description: A sentence, and a line for each item
version_added: 0.1.0
description:
  - Used by the roles and playbooks of this collection for messages that have several reasons.
options:
  _input:
    description:
      - What is told.
    type: list
    elements: str
    required: true
  sentence:
    description:
      - What stands above them. C({count}) is replaced by their number.
    type: str
    required: true
  notes:
    description:
      - What stands below them.
    type: list
    elements: str
    default: []
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Stop before anything is touched
  ansible.builtin.fail:
    msg: "{{ problems | gpuops.restore.itemized('{count} problem(s); nothing was changed.') }}"
  when: problems | length > 0
"""

RETURN = r"""
_value:
  description: The text, of several lines.
  type: str
"""

from collections.abc import Iterable
from typing import Any, Callable


def itemized(items: Iterable[Any], sentence: str, notes: Iterable[str] = ()) -> str:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._roles import lines

    return lines.itemized(items, sentence, notes)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"itemized": itemized}
