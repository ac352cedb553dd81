# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every module shares: the options of the connection, the client, errors to fail_json.

The one place below plugins/modules that knows Ansible.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any, Callable, Literal, NoReturn, overload

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible.module_utils.common.parameters import remove_values

try:
    from ansible.module_utils.secrets import mask_secrets
except ImportError:  # before ansible-core 2.22, which has deprecated the other one
    mask_secrets = None

from ._containerd.client import BUSY_SECONDS, MINIMUM_RATE, RECONNECT_SECONDS, Client
from ._core.errors import InputError, RestoreError, as_failure
from ._core.progress import Board

#: Options of every module that talks to containerd.
CONTAINERD = {
    "address": {
        "type": "path",
        "default": "/run/containerd/containerd.sock",
        "fallback": (env_fallback, ["CONTAINERD_ADDRESS"]),
    },
    "namespace": {"type": "str", "default": "k8s.io", "fallback": (env_fallback, ["CONTAINERD_NAMESPACE"])},
    "timeout": {"type": "int", "default": 60},
    "minimum_rate": {"type": "float", "default": MINIMUM_RATE / 1e6},
}

#: Whether a module talks to containerd in any case, or only where its option ``container_id`` is given.
ALWAYS: Literal["always"] = "always"
FOR_CONTAINER: Literal["for_container"] = "for_container"
#: It has the options, so that they can be defaults of the whole group, and does not connect.
NEVER: Literal["never"] = "never"

Step = Callable[[AnsibleModule, Client], "dict[str, Any]"]
OptionalClientStep = Callable[[AnsibleModule, "Client | None"], "dict[str, Any]"]
#: From the options, where it is told how far a call is.
MakeBoard = Callable[["dict[str, Any]"], Board]

#: Characters from which on a value of a no_log option is masked wherever it occurs in what a module prints. Ansible
#: masks shorter ones too, and a variable of the environment that is "1" or "gpu" would maim digests, paths and names
#: that the next task goes by. A secret of fewer characters is none.
_MASKED_LENGTH = 8


class Module(AnsibleModule):  # type: ignore[misc] # ansible-core has no annotations
    """Ansible's module, whose masking covers warnings too."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.no_log_values.difference_update([text for text in self.no_log_values if len(text) < _MASKED_LENGTH])

    def warn(self, warning: str, **more: Any) -> None:
        # Ansible takes what is a warning for checked already, and prints it as it is.
        masked = mask_secrets(warning) if mask_secrets else remove_values(warning, self.no_log_values)
        super().warn(masked, **more)


@overload
def run(
    argument_spec: dict[str, Any],
    step: Step,
    *,
    client: Literal["always"] = ...,
    board: MakeBoard | None = ...,
    **rules: Any,
) -> None: ...


@overload
def run(
    argument_spec: dict[str, Any],
    step: OptionalClientStep,
    *,
    client: Literal["for_container", "never"],
    board: MakeBoard | None = ...,
    **rules: Any,
) -> None: ...


def run(
    argument_spec: dict[str, Any],
    step: Callable[..., Any],
    *,
    client: str = ALWAYS,
    board: MakeBoard | None = None,
    **rules: Any,
) -> None:
    """Run one module: parse the options, open the client, carry out ``step``, exit with its result.

    A result with ``failed`` has ``msg`` and ``failure`` itself. A RestoreError becomes ``msg`` and ``failure``.
    ``board`` is that of long ones, :func:`_core.progress_file.board`; ``rules`` are AnsibleModule's own
    (``required_if`` and the like).
    """
    module = Module(argument_spec={**CONTAINERD, **argument_spec}, supports_check_mode=True, **rules)
    try:
        with contextlib.ExitStack() as stack:
            needed = client == ALWAYS or (client == FOR_CONTAINER and module.params["container_id"])
            shown = stack.enter_context(board(module.params) if board and not module.check_mode else Board())
            opened = stack.enter_context(_connect(module.params, shown)) if needed else None
            if opened is not None:
                # A call for several names each of them by itself.
                what = module.params.get("container_id") or module.params.get("name") or ""
                stack.enter_context(opened.following(what))
            result = step(module, opened)
    except Exception as error:  # noqa: BLE001
        # Everything that can be foreseen has a code of its own.
        _fail(module, argument_spec, as_failure(error))
    _conceal(module.params, argument_spec)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


def _connect(parameters: dict[str, Any], board: Board) -> Client:
    seconds, rate = float(parameters["timeout"]), float(parameters["minimum_rate"])
    if math.isnan(rate) or rate <= 0:
        raise InputError(
            "minimum_rate_invalid",
            f"minimum_rate is {rate:g} MB/s; data that does not move never arrives.",
            "Give megabytes a second above zero.",
        )
    # A call that waits for a daemon that restarts is bounded by timeout as any other.
    return Client(
        parameters["address"],
        parameters["namespace"],
        seconds,
        min(seconds, RECONNECT_SECONDS),
        rate=rate * 1e6,
        busy_seconds=parameters.get("busy_timeout", BUSY_SECONDS),
        board=board,
    )


def _fail(module: Module, argument_spec: dict[str, Any], error: RestoreError) -> NoReturn:
    """Called where the exception is at hand, whose traceback Ansible shows to those who have asked for it."""
    _conceal(module.params, argument_spec)
    module.fail_json(msg=error.sentence(), failure=error.failure().result())
    raise error


def _conceal(given: dict[str, Any], argument_spec: dict[str, Any]) -> None:
    """Hide the values of no_log options, however short, in what Ansible prints of the call; of a dict the keys stay."""
    for name, option in argument_spec.items():
        value = given.get(name)
        if not value:
            continue
        if option.get("no_log"):
            given[name] = dict.fromkeys(value, "hidden") if isinstance(value, dict) else "hidden"
        elif option.get("options"):
            for entry in value if isinstance(value, list) else [value]:
                _conceal(entry, option["options"])
