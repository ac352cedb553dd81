# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's part of a signature, with the real ssh-keygen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.gpuops.restore.plugins.action import containerd_checkpoint_signature as action
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import signature
from ansible_collections.gpuops.restore.tests.unit.helpers.ssh_keys import Key

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the module would get of the task's options."""

    def act(**options: Any) -> Any:
        plugin = object.__new__(action.ActionModule)
        plugin._task = SimpleNamespace(args=options)
        monkeypatch.setattr(action.ActionBase, "run", lambda *_: {})
        monkeypatch.setattr(plugin, "_execute_module", lambda module_args, task_vars: module_args, raising=False)
        return plugin.run(None, {})

    return act


def test_the_module_gets_the_signature_and_not_the_key(run: Any, tmp_path: Path) -> None:
    key = Key(tmp_path)
    found = run(name="a", digest=DIGEST, sign_key=str(key.path))
    assert found == {"name": "a", "digest": DIGEST, "signature": key.sign(DIGEST)}
    assert signature.require("a", DIGEST, found["signature"], [key.public])


def test_without_a_key_the_options_are_the_modules(run: Any) -> None:
    assert run(name="a", state="absent") == {"name": "a", "state": "absent"}


def test_a_key_needs_a_digest_and_no_signature(run: Any, tmp_path: Path) -> None:
    for options, reason in (({}, "give digest"), ({"digest": DIGEST, "signature": "s"}, "leave out signature")):
        with pytest.raises(AnsibleActionFail, match=reason):
            run(name="a", sign_key=str(tmp_path / "key"), **options)


def test_a_key_that_cannot_sign_is_named(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnsibleActionFail, match="was not signed with the key .*/none: .*No such file"):
        run(name="a", digest=DIGEST, sign_key=str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AnsibleActionFail, match="has no ssh-keygen"):
        run(name="a", digest=DIGEST, sign_key=str(tmp_path / "none"))
