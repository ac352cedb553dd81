# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One HTTP request from the network namespace of a process.

A network namespace belongs to a thread (setns(2)), so a thread that ends with the request enters it, and the module
itself stays where it is. Names are resolved as on the node, since that is what the resolver's files say.
"""

from __future__ import annotations

import ctypes
import os
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Answer:
    """``status`` of the response, or 0 and the ``problem`` of there being none."""

    status: int = 0
    problem: str = ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer; where it leads was not asked for."""

    def redirect_request(self, *_unused: Any) -> None:
        return None


def valid(url: str) -> bool:
    """Whether it is an http or https URL with a host."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def request(
    url: str,
    namespace: str,
    timeout: float,
    validate_certs: bool = True,
    method: str = "GET",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask the URL, without proxies and redirects, from the network namespace file ``namespace`` (empty: our own)."""
    found: list[Answer] = []
    wanted = urllib.request.Request(url, data=body or None, headers=dict(headers or {}), method=method)
    thread = threading.Thread(
        target=lambda: found.append(_request(wanted, namespace, timeout, validate_certs)), daemon=True
    )
    thread.start()
    # A resolver keeps no deadline.
    thread.join(timeout + 1.0)
    return found[0] if found else Answer(problem=f"no answer within {timeout:g} s")


def _request(wanted: urllib.request.Request, namespace: str, timeout: float, validate_certs: bool) -> Answer:
    try:
        if namespace:
            _enter(namespace)
        # To read the system's certificates takes longer than a request on the node.
        plain = wanted.type != "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else ssl.create_default_context()
        if not validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), _NoRedirect(), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(wanted, timeout=timeout) as response:
            return Answer(int(response.status))
    except urllib.error.HTTPError as error:
        error.close()
        return Answer(int(error.code))
    except urllib.error.URLError as error:
        return Answer(problem=str(error.reason))
    except Exception as error:  # noqa: BLE001 - whatever a server sends, it is an answer that is none
        return Answer(problem=f"{type(error).__name__}: {error}")


def _enter(namespace: str) -> None:
    """Move the calling thread into a network namespace. Raises OSError."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter the network namespace {namespace}: {os.strerror(number)}")
    finally:
        os.close(descriptor)
