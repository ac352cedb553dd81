# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every module does around its step: a channel where one is needed, errors as failures, secrets masked."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from typing import Any
from unittest.mock import patch

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common import warnings
from ansible.module_utils.common.parameters import PASS_VARS
from ansible.module_utils.testing import patch_module_args

from ansible_collections.gpuops.restore.plugins.module_utils import _module
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, NodeError
from ansible_collections.gpuops.restore.tests.unit.helpers import ansible_modules
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

SPEC: dict[str, Any] = {
    "container_id": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "env": {"type": "dict", "default": {}, "no_log": True},
    "workloads": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"name": {"type": "str"}, "env": {"type": "dict", "no_log": True}},
    },
}
#: What a module answers for a step that does nothing.
NOTHING: dict[str, Any] = {"changed": False}
Step = Callable[[AnsibleModule, "Client | None"], "dict[str, Any]"]


class Runs:
    """Runs a step in a module that needs containerd always, or only for a container."""

    def __init__(self, fake: FakeContainerd, use: Any) -> None:
        self.fake, self.use = fake, use

    def __call__(self, step: Step, **options: Any) -> dict[str, Any]:
        printed = io.StringIO()
        shown = {"inject_invocation": True, "tracebacks_for": ["error"]}
        given = {"address": self.fake.address, "timeout": 5, **options}
        # ansible-core 2.19 shows the call without being asked to.
        given.update({f"_ansible_{name}": value for name, value in shown.items() if name in PASS_VARS})
        fresh = patch.dict(warnings._global_warnings, clear=True)
        # Ansible looks once in the life of a process, which ordinarily is that of one module.
        anew = patch("ansible.module_utils._internal._traceback._module_tracebacks_enabled_events", None)
        with fresh, anew, patch_module_args(given), redirect_stdout(printed), suppress(SystemExit):
            _module.run(SPEC, step, client=self.use)
        return ansible_modules.as_shown(printed.getvalue())


@pytest.fixture(params=[_module.ALWAYS, _module.FOR_CONTAINER])
def run(fake: FakeContainerd, request: pytest.FixtureRequest) -> Runs:
    """Both kinds of modules."""
    return Runs(fake, request.param)


def says(text: str) -> Step:
    """A step whose result, warning and sizes have the text in them."""

    def step(module: AnsibleModule, _client: Client | None) -> dict[str, Any]:
        module.warn(f"warned of {text}")
        return {"changed": False, "digest": f"sha256:1{text}1", "deep": [{"list": [text]}]}

    return step


def raises(error: Exception) -> Step:
    """A step that fails."""

    def step(_module: AnsibleModule, _client: Client | None) -> dict[str, Any]:
        raise error

    return step


@pytest.mark.parametrize(
    "options",
    [
        {"password": "hunter22"},
        {"env": {"TOKEN": "hunter22"}},
        {"workloads": [{"name": "one", "env": {"A": "1"}}, {"name": "two", "env": {"TOKEN": "hunter22"}}]},
    ],
)
@pytest.mark.parametrize(
    "step",
    [
        says("hunter22"),
        raises(NodeError("a_b", "It is hunter22.", "Not hunter22.", details={"seen": ["hunter22"]})),
        raises(OSError("No such file: /run/hunter22")),
    ],
)
def test_a_secret_is_printed_nowhere(run: Runs, step: Step, options: dict[str, Any]) -> None:
    assert "hunter22" in json.dumps(run(step)), "else this shows nothing"
    assert "hunter22" not in json.dumps(run(step, **options))


def test_a_secret_that_a_result_which_failed_has(run: Runs) -> None:
    failed = {"changed": True, "failed": True, "msg": "It is hunter22.", "failure": {"code": "a_b"}}
    found = run(lambda _module, _client: failed, password="hunter22")
    assert (found["failed"], found["failure"], "hunter22" in json.dumps(found)) == (True, {"code": "a_b"}, False)


@pytest.mark.parametrize("short", ["1", "hunter2"])
def test_a_short_value_maims_nothing_and_is_hidden_in_the_call(run: Runs, short: str) -> None:
    found = run(says("11"), password=short, env={"A": short}, workloads=[{"name": "1", "env": {"B": short}}])
    assert (found["digest"], found["deep"]) == ("sha256:1111", [{"list": ["11"]}])
    given = found["invocation"]["module_args"]
    assert (given["password"], given["env"]) == ("hidden", {"A": "hidden"})
    assert given["workloads"] == [{"name": "1", "env": {"B": "hidden"}}]


def test_what_was_no_secret_is_told_of_the_call(run: Runs) -> None:
    found = run(lambda _module, _client: NOTHING, workloads=[{"name": "one"}])
    assert found["invocation"]["module_args"]["workloads"] == [{"name": "one", "env": None}]


def test_errors_are_told_with_what_to_do(run: Runs) -> None:
    found = run(raises(NodeError("a_b", "It lacks.", "Bring it.", outcome=RETRYABLE, details={"seen": 1})))
    assert (found["failed"], found["msg"]) == (True, "It lacks. Bring it.")
    assert found["failure"] == {
        "code": "a_b",
        "outcome": "retryable",
        "rpc": None,
        "hint": "Bring it.",
        "details": {"seen": 1},
    }


def test_what_the_operating_system_refuses_has_a_code_and_a_traceback(run: Runs) -> None:
    found = run(raises(OSError(5, "Input/output error")))
    assert (found["failure"]["code"], "Input/output error" in found["msg"]) == ("io_error", True)
    assert "raise error" in str(found["exception"])


def test_a_full_disk_may_have_room_later(run: Runs) -> None:
    found = run(raises(OSError(28, "No space left on device")))
    assert (found["failure"]["code"], found["failure"]["outcome"]) == ("disk_full", "retryable")


@pytest.mark.parametrize(
    ("use", "options", "expected"),
    [
        (_module.ALWAYS, {}, True),
        (_module.FOR_CONTAINER, {"container_id": "train"}, True),
        (_module.FOR_CONTAINER, {}, False),
    ],
)
def test_a_channel_is_opened_where_it_is_needed(
    fake: FakeContainerd, use: Any, options: dict[str, Any], expected: bool
) -> None:
    def step(_module: AnsibleModule, client: Client | None) -> dict[str, Any]:
        return {"changed": False, "client": client is not None}

    assert Runs(fake, use)(step, **options)["client"] is expected
    given = {**options, "address": "/nonexistent"}
    found = Runs(fake, use)(step, **given, timeout=1)
    assert found.get("failure", {}).get("code") == ("socket_absent" if expected else None)
