# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the CUDA modules share: containerd only where a container is named."""

from __future__ import annotations

import contextlib
import traceback
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from . import _module
from ._containerd.client import RECONNECT_SECONDS, Client
from ._core.errors import InputError, RestoreError

Step = Callable[[AnsibleModule, "Client | None"], "dict[str, Any]"]


def run(argument_spec: dict[str, Any], step: Step, **rules: Any) -> None:
    """As :func:`_module.run`, but ``step`` gets a client only if ``container_id`` is given."""
    module = AnsibleModule(
        argument_spec={**_module.CONTAINERD, **argument_spec},
        supports_check_mode=True,
        **rules,
    )
    parameters = module.params
    try:
        for pid in parameters["pids"] or []:
            if pid <= 1:
                raise InputError("pid_invalid", f"{pid} is no process id to name here.", "Give host process ids.")
        seconds = float(parameters["timeout"])
        with contextlib.ExitStack() as stack:
            client = None
            if parameters["container_id"]:
                client = stack.enter_context(
                    Client(parameters["address"], parameters["namespace"], seconds, min(seconds, RECONNECT_SECONDS))
                )
            result = step(module, client)
    except RestoreError as error:
        module.fail_json(msg=error.sentence(), failure=error.failure().result())
    except OSError as error:
        seen = RestoreError("io_error", f"The node's operating system refused: {error}.", "Mend that, then run again.")
        module.fail_json(msg=seen.sentence(), failure=seen.failure().result(), exception=traceback.format_exc())
    module.exit_json(**result)
