# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names in registries, and which server stands behind them.

The grammar is that of the OCI distribution specification 1.1 (name, reference) with a host before it.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from dataclasses import dataclass

from .._core.errors import InputError

_REFERENCE = re.compile(
    r"(?P<host>(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?)"
    r"/(?P<repository>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?\Z"
)
#: Docker Hub's registry is not at the host that its references name.
_DOCKER_HUB, _DOCKER_HUB_SERVER = "docker.io", "https://registry-1.docker.io"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Reference:
    """``host/repository:tag@digest``; of ``tag`` and ``digest`` one may be empty."""

    host: str
    repository: str
    tag: str
    digest: str

    @property
    def target(self) -> str:
        """What a manifest is asked for by: the digest where there is one."""
        return self.digest or self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Raises InputError ``registry_reference_invalid``."""
    found = _REFERENCE.match(text)
    host = found.group("host") if found else ""
    # As elsewhere: what could be a path element of Docker Hub is no host.
    if found is None or not (set(".:[") & set(host) or host == "localhost"):
        raise _invalid(text, "is not of the form HOST[:PORT]/REPOSITORY:TAG[@DIGEST]")
    if not found.group("tag") and not found.group("digest"):
        raise _invalid(text, "has neither a tag nor a digest")
    return Reference(host, found.group("repository"), found.group("tag") or "", found.group("digest") or "")


def for_push(text: str) -> Reference:
    """The same for a push, which is to a tag. Raises InputError ``registry_reference_invalid``."""
    found = parse(text)
    if not found.tag or found.digest:
        raise _invalid(text, "does not end with a tag, which a push needs")
    return found


def _invalid(text: str, why: str) -> InputError:
    return InputError(
        "registry_reference_invalid",
        f"The reference {text[:200]!r} {why}.",
        "Give it in full, as registry.example:5000/team/trainer:001.",
    )


def server_url(reference: Reference, server: str, insecure: bool) -> str:
    """The URL below which ``/v2/`` is: ``server`` if given, else HTTPS at the reference's host.

    Raises InputError ``registry_server_invalid`` and, as :func:`require_safe`, ``registry_plain_http``.
    """
    if not server:
        return _DOCKER_HUB_SERVER if reference.host == _DOCKER_HUB else f"https://{reference.host}"
    if not is_usable_url(server) or urllib.parse.urlsplit(server).query or urllib.parse.urlsplit(server).fragment:
        raise InputError(
            "registry_server_invalid",
            f"The option server is {without_query(server)!r}, which is not the URL of a registry.",
            "Give https://HOST[:PORT], or http://HOST[:PORT]; user and password have options of their own.",
        )
    require_safe(server, insecure)
    return server.rstrip("/")


def require_safe(url: str, insecure: bool) -> None:
    """Raise InputError ``registry_plain_http`` where memory or a password would cross a network in the clear."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "http" and not insecure and not is_loopback(parts.hostname or ""):
        raise InputError(
            "registry_plain_http",
            f"The server {without_query(url)} is asked by plain HTTP, by which anybody on the way reads the memory "
            "of the processes.",
            "Use https (ca_file for a certificate of your own); insecure: true sends it in the clear all the same.",
        )


def is_usable_url(url: str) -> bool:
    """Whether it is an http or https URL with a host and without a user in it."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = all(33 <= ord(letter) < 127 for letter in url)
    return plain and parts.scheme in _PORTS and bool(parts.hostname) and port != 0 and "@" not in parts.netloc


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials are for."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)


def is_loopback(host: str) -> bool:
    """Whether requests to this host stay on the node: by its name or address alone, nothing is resolved."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def without_query(url: str) -> str:
    """For messages: a query may carry a signature, a user part a password."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "(not a URL)"
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return "".join(letter if letter.isprintable() else "?" for letter in shown[:200])
