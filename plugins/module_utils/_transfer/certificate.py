# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A certificate for one run, with its key, both as text: made by the node's openssl, kept nowhere."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Sequence

from .._core.errors import InputError, NodeError

_SECONDS = 60.0
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----\n.*?-----END \1-----\n", re.DOTALL)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")


def alternative_names(hosts: Sequence[str]) -> str:
    """``hosts`` as a certificate names them. Raises InputError ``serve_host_invalid``."""
    found = []
    for host in hosts:
        try:
            found.append(f"IP:{ipaddress.ip_address(host)}")
        except ValueError as error:
            if not _HOST.match(host):
                raise InputError(
                    "serve_host_invalid",
                    f"{host[:80]!r} is neither an address nor the name of a host.",
                    "Give in hosts what the other node reaches this one by, without a port.",
                ) from error
            found.append(f"DNS:{host}")
    return ",".join(found)


def make(hosts: Sequence[str], path: str) -> tuple[str, str]:
    """Certificate and key for ``hosts``; ``path``: where programs are. Raises NodeError ``openssl_*``."""
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-sha256", "-subj", "/CN=gpuops.restore"),
        *("-addext", f"subjectAltName={alternative_names(hosts)}", "-keyout", "/dev/stdout"),
    ]
    try:
        # A step knows no AnsibleModule whose run_command it could use.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            env={"PATH": path},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NodeError(
            "openssl_missing",
            "The program openssl, which makes the certificate for this run, is not on this node, or does not end.",
            "Install openssl there, or let the checkpoint go another way.",
        ) from error
    blocks = {found.group(1): found.group(0) for found in _BLOCK.finditer(done.stdout)}
    key = next((text for kind, text in blocks.items() if kind.endswith("PRIVATE KEY")), "")
    if done.returncode or not key or "CERTIFICATE" not in blocks:
        # Its output may hold the key; what it says of errors does not.
        said = done.stderr.strip().splitlines()[-1:] or ["it says nothing"]
        raise NodeError(
            "openssl_failed",
            f"openssl made no certificate: {said[0][:200]}.",
            "See that openssl 1.1.1 or newer is on this node, with its usual configuration.",
        )
    return blocks["CERTIFICATE"], key
