# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SSH keys and what they sign, by the real ssh-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path

NAMESPACE = "checkpoint@gpuops.restore"


class Key:
    """A key pair without a passphrase."""

    def __init__(self, directory: Path, name: str = "key", kind: str = "ed25519") -> None:
        self.path = directory / name
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a comment", "-f", str(self.path)]
        subprocess.run(command, check=True, capture_output=True)
        self.public = self.path.with_suffix(".pub").read_text(encoding="ascii")

    def sign(self, digest: str, namespace: str = NAMESPACE) -> str:
        """The signature of the digest and a newline."""
        command = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(self.path)]
        done = subprocess.run(command, input=f"{digest}\n", check=True, capture_output=True, text=True)
        return done.stdout
