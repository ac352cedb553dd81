# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: window_report
short_description: The report of a maintenance window
version_added: 0.1.0
description:
  - Used by the playbook C(gpuops.restore.maintenance), which writes it on the controller. The document has C(version), C(window),
    C(made_at), C(collection), C(totals), C(batches) with the C(seconds) that each took, what those before it had C(predicted), and
    C(resumed) where an earlier run had begun it, C(seconds_left), C(pace), the same in a sentence, and
    C(nodes), each with its C(method), C(mode), C(phase), C(problems), C(history), versions and
    C(workloads), each of which has its C(phase), C(message), C(checkpoint), C(digest), C(bytes), C(stopped_at), C(back_at), C(outage),
    C(where), C(moves), C(proof) and C(seconds), beside what was C(predicted), and C(history).
options:
  _input:
    description:
      - By host, C(node), C(workloads) and C(facts) as M(gpuops.restore.containerd_window) returned them last, and C(problems); C(batch), its C(hosts), and
        when it C(begun) and C(ended).
    type: dict
    required: true
  form:
    description:
      - V(document), V(page), one HTML page that needs nothing else, V(markdown), or V(lines) for a screen.
    type: str
    choices: [document, page, markdown, lines]
    required: true
  window:
    description:
      - The window's name.
    type: str
    required: true
  collection:
    description:
      - The version of this collection.
    type: str
    default: ""
  serial:
    description:
      - How the run makes batches of the nodes, as Ansible's keyword C(serial).
    type: raw
    default: 100%
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Write the page
  ansible.builtin.copy:
    content: "{{ heard | gpuops.restore.window_report('page', '2026-12-kernel') }}"
    dest: window.html
    mode: "0600"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The report in that form; a dictionary, a text or a list.
  type: raw
"""

from collections.abc import Mapping
from typing import Any, Callable


def window_report(nodes: Mapping[str, Any], form: str, window: str, collection: str = "", serial: Any = "100%") -> Any:
    """See DOCUMENTATION."""
    # Here, since Ansible loads all filters of the collection whenever one is called.
    from ansible_collections.gpuops.restore.plugins.module_utils._core import text
    from ansible_collections.gpuops.restore.plugins.module_utils._window import report

    document = report.build(window, nodes, collection, text.utc_now(), serial)
    forms = {"page": report.page, "markdown": report.markdown, "lines": report.lines}
    return forms[form](document) if form in forms else document


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter."""
        return {"window_report": window_report}
