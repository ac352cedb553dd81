# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Credentials for a registry, and its challenges.

Challenges as in RFC 9110, 11.6.1; auth files as ``docker login`` and ``podman login`` write them
(containers-auth.json(5)).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import Any

from .._core.errors import InputError
from .reference import Reference

_MAX_FILE = 1 << 20
_SCHEME = re.compile(r"\s*(?:,\s*)*([A-Za-z][A-Za-z0-9-]*)(?:\s+|\Z)(?![=])")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
#: Under this key ``docker login`` keeps Docker Hub's.
_DOCKER_HUB_KEYS = ("docker.io", "index.docker.io", "index.docker.io/v1")
_HIDDEN = "(hidden)"


@dataclass(frozen=True)
class Credentials:
    """A user with a password, or a bearer token; all empty: anonymous. Nothing of it is ever printed."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.token)

    def basic(self) -> str:
        """The value of an Authorization header."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()

    def conceal(self, text: str) -> str:
        """``text`` without the secrets: a server may send them back to us."""
        for secret in (self.basic()[6:] if self.password else "", self.password, self.token):
            if secret:
                text = text.replace(secret, _HIDDEN)
        return text


def challenges(headers: list[str]) -> dict[str, dict[str, str]]:
    """The schemes, in lower case, of ``WWW-Authenticate`` headers with their parameters."""
    found: dict[str, dict[str, str]] = {}
    for header in headers:
        at = 0
        while at < len(header):
            scheme = _SCHEME.match(header, at)
            if scheme is None:
                break
            at = scheme.end()
            parameters = found.setdefault(scheme.group(1).lower(), {})
            match = _PARAMETER.match(header, at)
            while match is not None:
                value = match.group(2) if match.group(2) is not None else match.group(3)
                parameters[match.group(1).lower()] = re.sub(r"\\(.)", r"\1", value)
                at = match.end()
                match = _PARAMETER.match(header, at)
    return found


def from_file(path: str, reference: Reference) -> Credentials:
    """The credentials for that repository; the most specific entry counts. None for it: anonymous.

    Raises InputError ``registry_auth_file_invalid``.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_FILE + 1)
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror or error}") from error
    try:
        document = json.loads(data) if len(data) <= _MAX_FILE else None
    except (ValueError, RecursionError):
        # Without the parser's words, which quote the file.
        document = None
    auths = document.get("auths") or {} if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(auths, dict):
        raise _unusable(path, "is not a JSON object with auths, as docker login and podman login write it")
    by_key = {_key(str(key)): entry for key, entry in auths.items()}
    for key in _keys(reference):
        if key in by_key:
            return _entry(path, key, by_key[key], document)
    helpers = document.get("credHelpers")
    if isinstance(helpers, dict) and reference.host in helpers:
        raise _by_helper(path, reference.host)
    return Credentials()


def _keys(reference: Reference) -> list[str]:
    """From ``host/a/b`` to ``host``."""
    parts = reference.repository.split("/")
    keys = [f"{reference.host}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)] + [reference.host]
    return [*keys, *_DOCKER_HUB_KEYS] if reference.host in _DOCKER_HUB_KEYS else keys


def _key(text: str) -> str:
    return re.sub(r"\Ahttps?://", "", text).rstrip("/")


def _entry(path: str, key: str, entry: Any, document: dict[str, Any]) -> Credentials:
    if not isinstance(entry, dict):
        raise _unusable(path, f"has an entry for {key} that is not an object")
    if entry.get("registrytoken"):
        return Credentials(token=str(entry["registrytoken"]))
    if entry.get("identitytoken"):
        raise _unusable(path, f"has only an identity token for {key}, which is not supported")
    if not entry.get("auth"):
        if document.get("credsStore") or document.get("credHelpers"):
            raise _by_helper(path, key)
        raise _unusable(path, f"has an entry for {key} without credentials")
    try:
        username, colon, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise _unusable(path, f"has an entry for {key} that is not the base64 of user:password")
    # Docker pads with NUL bytes.
    return Credentials(username, password.rstrip("\0"))


def _by_helper(path: str, key: str) -> InputError:
    return _unusable(path, f"leaves the credentials for {key} to a helper program, which is not run here")


def _unusable(path: str, why: str) -> InputError:
    return InputError(
        "registry_auth_file_invalid",
        f"The file auth_file, {path}, {why}.",
        "Give username and password or token, or a file that holds them.",
    )
