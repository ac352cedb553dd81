# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signs on the controller, where the private key or its agent is; the module then takes the signature to the node."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint.signature import NAMESPACE

#: Long enough for somebody to touch a hardware key.
_SECONDS = 120.0


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible has no types here
    """The module with a signature in place of ``sign_key``."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Carry out the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        options = dict(self._task.args)
        key = options.pop("sign_key", None)
        if key:
            if not options.get("digest"):
                raise AnsibleActionFail("sign_key signs a digest: give digest, as containerd_checkpoint returned it.")
            if options.get("signature"):
                raise AnsibleActionFail("sign_key makes the signature: leave out signature, or sign_key.")
            options["signature"] = sign(os.path.expanduser(str(key)), str(options["digest"]))
        result.update(self._execute_module(module_args=options, task_vars=task_vars))
        return result


def sign(key: str, digest: str) -> str:
    """The signature of the digest. Raises AnsibleActionFail."""
    try:
        done = subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", key],
            input=f"{digest}\n",
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise AnsibleActionFail(
            f"The digest {digest} cannot be signed: the controller has no ssh-keygen. "
            "Install OpenSSH's client programs."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise AnsibleActionFail(
            f"The digest {digest} was not signed: the key {key} did not answer within {_SECONDS:.0f} s. "
            "A key with a passphrase has to be in an SSH agent."
        ) from error
    if done.returncode != 0:
        why = (done.stderr.strip() or "no reason given").splitlines()[-1][:300]
        raise AnsibleActionFail(
            f"The digest {digest} was not signed with the key {key}: {why}. "
            "Give sign_key a private key of the controller, or a public one whose private half is in the SSH agent."
        )
    return done.stdout
