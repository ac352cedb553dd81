#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_metrics
short_description: Metrics of captures and restores for node_exporter
version_added: 0.1.0
description:
  - Writes what captures, restores and failed restores have left on the node into a file of Prometheus' text format, which node_exporter's
    textfile collector reads. Run it after a window, or by a schedule.
  - Captures are those of checkpoints that are on the node and were captured on it, restores those whose receipts are there, failures
    those whose evidence is kept. What was cleaned up is no longer told.
  - The metrics are C(gpuops_capture_timestamp_seconds), C(gpuops_capture_bytes), C(gpuops_checkpoints), C(gpuops_restore_timestamp_seconds),
    C(gpuops_restore_outage_seconds), C(gpuops_restore_seconds), C(gpuops_restore_gpu_bytes), C(gpuops_failures) and
    C(gpuops_failure_timestamp_seconds), with the labels C(namespace) and C(workload). The last one has C(code) and C(outcome), too.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.staging
options:
  path:
    description:
      - The file, in the directory that node_exporter was given as C(--collector.textfile.directory), which has to exist. Its name ends with
        C(.prom), or node_exporter does not read it. Everybody on the node can read it; it holds names and numbers.
    type: path
    required: true
  state:
    description:
      - V(present) writes the file, V(absent) removes it.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: gpuops.restore.containerd_workload_info
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: node_exporter tells what was captured and restored
  gpuops.restore.containerd_metrics:
    path: /var/lib/prometheus/node-exporter/gpuops_restore.prom

- name: It tells nothing any more
  gpuops.restore.containerd_metrics:
    path: /var/lib/prometheus/node-exporter/gpuops_restore.prom
    state: absent
"""

RETURN = r"""
text:
  description: What the file holds; empty with O(state=absent).
  type: str
  returned: success
  sample: |
    # HELP gpuops_restore_outage_seconds From the container to restored GPU memory in that restore.
    # TYPE gpuops_restore_outage_seconds gauge
    gpuops_restore_outage_seconds{namespace="k8s.io",workload="pytorch-training"} 4.15
failure:
  description: What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
  type: dict
  returned: failure
  sample:
    code: metrics_unwritable
    outcome: terminal
    rpc: null
    hint: Set path to a file in the directory that node_exporter reads (--collector.textfile.directory), and make it.
    details: {path: /var/lib/prometheus/node-exporter/gpuops_restore.prom}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._window import metrics


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    path = module.params["path"]
    if module.params["state"] == "absent":
        return {"changed": metrics.absent(path, module.check_mode), "text": ""}
    text = metrics.gather(client, module.params["staging_dir"])
    return {"changed": metrics.present(path, text, module.check_mode), "text": text}


ARGUMENT_SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **_options.STAGING,
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step)


if __name__ == "__main__":
    main()
