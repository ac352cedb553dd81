# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: migration_verdicts
short_description: What becomes of each workload that a migration has captured
version_added: 0.1.0
description:
  - Used by the playbooks C(gpuops.restore.migrate) and C(gpuops.restore.settle). For each workload it decides whether the source is ended,
    goes on, or stays paused.
  - The source is ended only where the target has a receipt for a copy of exactly the captured digest that runs. It goes on only where the target
    has no copy. Where the target cannot be asked it stays paused.
options:
  _input:
    description:
      - The answer of M(gpuops.restore.containerd_migration_info) on the source.
    type: dict
    required: true
  source:
    description:
      - The source, as the inventory calls it.
    type: str
    required: true
  targets:
    description:
      - By host, C(look), the answer of M(gpuops.restore.containerd_migration_info), and C(ended), the results of tasks that ended copies.
    type: dict
    required: true
  known:
    description:
      - Records that this run has written, for a source that gives no answer.
    type: list
    elements: dict
    default: []
  migration:
    description:
      - The migration that is about to begin, as for P(gpuops.restore.migration_plan#filter). It goes on from a capture that an earlier run of it
        has left.
    type: dict
  settled:
    description:
      - Results of the tasks that ended and resumed the sources; then the verdicts say what came of it.
    type: list
    elements: dict
  others:
    description:
      - Runs on other controllers, whose end cannot be seen from here, are taken to have ended. What a run notes is otherwise left to it.
    type: bool
    default: false
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Decide
  ansible.builtin.set_fact:
    verdicts: "{{ looked | gpuops.restore.migration_verdicts(inventory_hostname, {'gpu-b': {'look': there, 'ended': []}}) }}"
"""

RETURN = r"""
_value:
  description:
    - One for each record. C(where) says where the workload runs then (V(target), V(source), V(paused), V(taken up), V(nowhere), V(both)),
      C(leave) what has to be done to the source for that, C(message) why.
    - C(clears) and C(place) say which archives can go, C(hosts) from where; C(dropped), whether images on the target can go.
    - C(path) is the record's file; C(cleared) and C(uncleared) are what it says after that, unless C(forget) is set.
  type: list
  elements: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any, Callable


def migration_verdicts(
    answer: Any,
    source: str,
    targets: Mapping[str, Any],
    known: Sequence[Mapping[str, Any]] = (),
    migration: Mapping[str, Any] | None = None,
    settled: Sequence[Any] | None = None,
    others: bool = False,
) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._migration import answers

    found = answers.verdicts(source, answer, targets, known, migration, settled, others)
    return [verdict.to_json() for verdict in found]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"migration_verdicts": migration_verdicts}
