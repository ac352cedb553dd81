# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every module shares: the options of the connection, the client, errors to fail_json.

The one place below plugins/modules that knows Ansible.
"""

from __future__ import annotations

import traceback
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ._containerd.client import RECONNECT_SECONDS, Client
from ._core.errors import RestoreError

#: Options of every module that talks to containerd.
CONTAINERD = {
    "address": {
        "type": "path",
        "default": "/run/containerd/containerd.sock",
        "fallback": (env_fallback, ["CONTAINERD_ADDRESS"]),
    },
    "namespace": {"type": "str", "default": "k8s.io", "fallback": (env_fallback, ["CONTAINERD_NAMESPACE"])},
    "timeout": {"type": "int", "default": 60},
}

Step = Callable[[AnsibleModule, Client], "dict[str, Any]"]


def run(argument_spec: dict[str, Any], step: Step, **rules: Any) -> None:
    """Run one module: parse the options, open the client, carry out ``step``, exit with its result.

    A result with ``failed`` has ``msg`` and ``failure`` itself.
    ``rules`` are AnsibleModule's own (``required_if`` and the like). A RestoreError becomes ``msg`` and ``failure``.
    """
    module = AnsibleModule(argument_spec={**CONTAINERD, **argument_spec}, supports_check_mode=True, **rules)
    parameters = module.params
    # Ansible would mask each of those values wherever it occurs in the result; a "1" would maim digests and names.
    module.no_log_values.clear()
    try:
        seconds = float(parameters["timeout"])
        # A call that waits for a daemon that restarts is bounded by timeout as any other.
        with Client(parameters["address"], parameters["namespace"], seconds, min(seconds, RECONNECT_SECONDS)) as client:
            result = step(module, client)
        _conceal(module, argument_spec)
    except RestoreError as error:
        _conceal(module, argument_spec)
        module.fail_json(msg=error.sentence(), failure=error.failure().result())
    except OSError as error:
        _conceal(module, argument_spec)
        # Disks that fill up and the like; everything that can be foreseen has a code of its own.
        seen = RestoreError("io_error", f"The node's operating system refused: {error}.", "Mend that, then run again.")
        module.fail_json(msg=seen.sentence(), failure=seen.failure().result(), exception=traceback.format_exc())
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


def _conceal(module: AnsibleModule, argument_spec: dict[str, Any]) -> None:
    """Mask the options that may hold secrets in what Ansible prints of the call; of a dict the keys stay."""
    _mask(module.params, argument_spec)


def _mask(given: dict[str, Any], argument_spec: dict[str, Any]) -> None:
    for name, option in argument_spec.items():
        value = given.get(name)
        if not value:
            continue
        if option.get("no_log"):
            given[name] = dict.fromkeys(value, "hidden") if isinstance(value, dict) else "hidden"
        elif option.get("options"):
            for entry in value if isinstance(value, list) else [value]:
                _mask(entry, option["options"])
