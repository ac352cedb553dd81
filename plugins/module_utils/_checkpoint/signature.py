# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who vouches for a checkpoint: a signature of its digest by an SSH key, made and verified by OpenSSH's ``ssh-keygen``.

What is signed is the digest of the checkpoint's index and a newline, under the namespace :data:`NAMESPACE` (format
SSHSIG, OpenSSH's PROTOCOL.sshsig). The digest stands for everything that the checkpoint consists of. The signature is a
label of the image in containerd, and an annotation in archives and registries.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from .._core import labels
from .._core.errors import InputError, NodeError

#: Keeps a signature that the same key made of anything else from counting here.
NAMESPACE = "checkpoint@gpuops.restore"
#: Who signs, as the list of keys calls all of them; ssh-keygen wants a name.
_PRINCIPAL = "operator"
_SIGNATURE = re.compile(r"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)-----END SSH SIGNATURE-----\n?\Z")
_KEY = re.compile(r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}(?: [^\r\n]*)?\Z")
_FINGERPRINT = re.compile(r"key (SHA256:[A-Za-z0-9+/]+)")
_SECONDS = 30.0


def check_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """The public keys, as files ``*.pub`` have them. Raises InputError ``verify_key_invalid``."""
    found = tuple(key.strip() for key in keys if key.strip())
    for key in found:
        if not _KEY.match(key):
            raise InputError(
                "verify_key_invalid",
                f"The key {key[:40]!r} of verify_key is no public SSH key.",
                "Give the line of a file that ends with .pub, such as ssh-ed25519 AAAA... name.",
            )
    return found


def signer(digest: str, signature: str) -> str:
    """Fingerprint (``SHA256:...``) of the key that signed the digest; it may be anybody's.

    Raises InputError ``signature_invalid`` where it is no signature of this digest, NodeError ``ssh_keygen_*``.
    """
    if len(signature) > labels.MAX_SIGNATURE or not _SIGNATURE.match(signature):
        raise _invalid(digest, "it is not in the form that ssh-keygen -Y sign gives")
    done = _ssh_keygen(["check-novalidate"], digest, signature, "")
    found = _FINGERPRINT.search(done.stdout)
    if done.returncode != 0 or found is None:
        # The last line is the verdict.
        raise _invalid(digest, (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1])
    return found.group(1)


def require(name: str, digest: str, signature: str, keys: Sequence[str]) -> str:
    """Fingerprint of the key, one of ``keys``, that signed the digest of the checkpoint ``name``.

    Without keys nobody asks: "". Raises InputError ``checkpoint_unsigned``, ``signer_unknown``, ``signature_invalid``,
    ``verify_key_invalid``, and NodeError ``ssh_keygen_*``.
    """
    wanted = check_keys(keys)
    if not wanted:
        return ""
    if not signature:
        raise InputError(
            "checkpoint_unsigned",
            f"The checkpoint {name} ({digest}) is not signed, and verify_key wants a signature.",
            "Sign it where it was taken (checkpoint_node_sign_key), or pin its digest in place of verify_key.",
            details={"digest": digest},
        )
    fingerprint = signer(digest, signature)
    allowed = "".join(f'{_PRINCIPAL} namespaces="{NAMESPACE}" {key}\n' for key in wanted)
    if _ssh_keygen(["verify", "-I", _PRINCIPAL], digest, signature, allowed).returncode != 0:
        raise InputError(
            "signer_unknown",
            f"The checkpoint {name} ({digest}) is signed by the key {fingerprint}, which is none of verify_key.",
            "Add that key's public half to verify_key if you trust it; else do not use the checkpoint.",
            details={"digest": digest, "signer": fingerprint},
        )
    return fingerprint


def _ssh_keygen(verb: Sequence[str], digest: str, signature: str, allowed: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise NodeError(
            "ssh_keygen_missing",
            f"The signature of {digest} cannot be verified: this node has no ssh-keygen.",
            "Install OpenSSH's client programs (openssh-client, openssh), or pin the digest in place of verify_key.",
        )
    with tempfile.TemporaryDirectory(prefix="gpuops-signature-") as directory:
        paths = [os.path.join(directory, name) for name in ("signature", "allowed_signers")]
        for path, text in zip(paths, (signature, allowed)):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        arguments = [program, "-Y", *verb, "-n", NAMESPACE, "-s", paths[0], *(["-f", paths[1]] if allowed else [])]
        try:
            # A step knows no AnsibleModule whose run_command it could use.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                arguments,
                input=f"{digest}\n",
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NodeError(
                "ssh_keygen_failed",
                f"The signature of {digest} could not be verified: {error}.",
                "See what is wrong with ssh-keygen on the node.",
            ) from error
    if "usage:" in done.stderr:
        # It does not know the operation, and has looked at nothing.
        raise NodeError(
            "ssh_keygen_failed",
            f"The signature of {digest} could not be verified: {program} does not know -Y {verb[0]}.",
            "Install OpenSSH 8.2 or later on the node.",
        )
    return done


def _invalid(digest: str, why: str) -> InputError:
    return InputError(
        "signature_invalid",
        f"What is given as the signature of {digest} does not fit: {why[:300]}.",
        "Sign the checkpoint again where it was taken. If nobody changed the signature knowingly, find out who did.",
        details={"digest": digest},
    )
