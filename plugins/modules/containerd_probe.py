#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_probe
short_description: Prove that a container works
version_added: 0.1.0
description:
  - A process that is alive may still be stuck. This module proves that a restored container does its work - by a command that is
    run in it, by a file that it writes, or by an HTTP address at which it answers.
  - It fails with C(failure.code) V(probe_failed) where there is no proof in time.
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.staging
attributes:
  check_mode:
    support: partial
    details:
      - Without a running task, and for O(command), nothing is tried; RV(probe.ok) is null then and the module warns.
  diff_mode:
    support: N/A
    details:
      - The module reports no change.
  idempotent:
    support: full
    details:
      - What O(command) does is the caller's.
options:
  container_id:
    description:
      - Name of the container. Its task has to run.
    type: str
    required: true
  command:
    description:
      - A command and its arguments, run in the container with the user, environment, directory and rights of its first process. There is no shell unless
        the command is one.
      - Exactly one of O(command), O(file) and O(http) has to be given.
    type: list
    elements: str
  command_seconds:
    description:
      - Seconds that O(command) may take. Past them it is killed.
    type: float
    default: 30.0
  exit_status:
    description:
      - The exit status that O(command) must have.
    type: int
    default: 0
  return_output:
    description:
      - Return the last 4 KiB of what O(command) prints. By default they are thrown away, since they may hold secrets.
    type: bool
    default: false
  file:
    description:
      - A file in the container that the process writes to.
    type: dict
    suboptions:
      path:
        description:
          - Absolute path in the container. Links are followed within the container only.
        type: str
        required: true
      seconds:
        description:
          - Seconds within which the file has to come into being, or to change in size or in its last MiB.
        type: float
        default: 10.0
  http:
    description:
      - An address at which the container answers.
    type: dict
    suboptions:
      url:
        description:
          - The URL, V(http) or V(https). It is asked without proxies, and redirects are not followed.
          - Host names are resolved by the node, not by the container; an IP address is safest.
        type: str
        required: true
      status:
        description:
          - The HTTP statuses that are proof.
        type: list
        elements: int
        default: [200]
      seconds:
        description:
          - Seconds for which to keep trying.
        type: float
        default: 10.0
      network:
        description:
          - Ask from the container's own network namespace, where V(127.0.0.1) is the container, or from the node's.
        type: str
        choices: [container, host]
        default: container
      validate_certs:
        description:
          - Verify the certificate of V(https), as the node would.
        type: bool
        default: true
  staging_dir:
    description:
      - Directory below which the output of O(command) lies while it runs, readable for root only.
seealso:
  - module: gpuops.restore.containerd_task
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: The training writes its log
  gpuops.restore.containerd_probe:
    container_id: pytorch-training
    file:
      path: /workspace/train.log
      seconds: 60

- name: The GPU is there
  gpuops.restore.containerd_probe:
    container_id: pytorch-training
    command: [nvidia-smi, -L]
    return_output: true

- name: The service answers
  gpuops.restore.containerd_probe:
    container_id: inference
    http:
      url: http://127.0.0.1:8000/health
"""

RETURN = r"""
probe:
  description: The proof.
  type: dict
  returned: success
  contains:
    kind:
      description: V(command), V(file) or V(http).
      type: str
      returned: always
    ok:
      description: True; null where check mode did not try.
      type: bool
      returned: always
    detail:
      description: What was seen, in one sentence.
      type: str
      returned: always
    seconds:
      description: How long it took.
      type: float
      returned: always
    output:
      description: The last 4 KiB of what O(command) printed.
      type: str
      returned: with O(return_output=true)
  sample: {kind: file, ok: true, detail: The file /workspace/train.log went from 81920 to 82944 bytes., seconds: 1.204}
failure:
  description:
    - What went wrong. C(code) is stable. C(outcome) is V(retryable) where more time may help, V(unknown) where a command ended otherwise,
      V(terminal) where the probe cannot be carried out.
  type: dict
  returned: failure
  sample:
    code: probe_failed
    outcome: retryable
    rpc: null
    hint: Look at what the process does, give it more time, or correct the path.
    details: {kind: file}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._probe import probe as probes


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    done = probes.probe(client, probes.ProbeParams.from_options(module.params), module.check_mode)
    if done.ok is None:
        module.warn(done.detail)
    return {"changed": False, "probe": done.result()}


ARGUMENT_SPEC: dict[str, Any] = {
    "container_id": {"type": "str", "required": True},
    "command": {"type": "list", "elements": "str"},
    "command_seconds": {"type": "float", "default": 30.0},
    "exit_status": {"type": "int", "default": 0},
    "return_output": {"type": "bool", "default": False},
    "file": {
        "type": "dict",
        "options": {
            "path": {"type": "str", "required": True},
            "seconds": {"type": "float", "default": 10.0},
        },
    },
    "http": {
        "type": "dict",
        "options": {
            "url": {"type": "str", "required": True},
            "status": {"type": "list", "elements": "int", "default": [200]},
            "seconds": {"type": "float", "default": 10.0},
            "network": {"type": "str", "choices": ["container", "host"], "default": "container"},
            "validate_certs": {"type": "bool", "default": True},
        },
    },
    **_options.STAGING,
}
RULES: dict[str, Any] = {
    "mutually_exclusive": [("command", "file", "http")],
    "required_one_of": [("command", "file", "http")],
}


def main() -> None:
    """Entry point of the module."""
    _module.run(ARGUMENT_SPEC, step, **RULES)


if __name__ == "__main__":
    main()
