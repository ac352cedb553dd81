# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP requests to one registry, streaming both ways.

Credentials go to the registry's own origin and to the token server that it names, and nowhere else. Proxies are those
of the environment, except for registries on the node itself.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable

from .._core import strict_json
from .._core.errors import RETRYABLE, InputError, NodeError, RestoreError
from .._core.strict_json import StrictJsonError
from .credentials import Credentials, challenges
from .errors import answer_invalid, denied, redirect_refused, unreachable
from .reference import is_loopback, origin, require_safe, usable, without_query

CHUNK = 1 << 20
_MAX_HOPS = 5
_MAX_TOKEN = 1 << 20
_MAX_COMPLAINT = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504, 507)

Body = Callable[[], Iterable[bytes]]


class Answer:
    """A response whose body is read as it comes; close it, or use it as a context manager."""

    def __init__(self, response: Any, url: str) -> None:
        self._response = response
        self.url = url
        self.status = int(response.status)

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()

    def header(self, name: str) -> str:
        return str(self._response.headers.get(name) or "")

    def headers(self, name: str) -> list[str]:
        return [str(value) for value in self._response.headers.get_all(name) or []]

    def chunks(self) -> Iterator[bytes]:
        """The body. Raises NodeError ``registry_unreachable`` when the connection breaks with an error."""
        while True:
            try:
                data = self._response.read(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise unreachable(self.url, error) from error
            if not data:
                return
            yield data

    def read(self, limit: int) -> bytes:
        """At most ``limit`` bytes of the body, and one more if there are more."""
        data = b""
        for chunk in self.chunks():
            data += chunk
            if len(data) > limit:
                break
        return data[: limit + 1]


@dataclass(frozen=True)
class Settings:
    """How to talk to the registry. ``server`` is a checked URL; ``timeout``: seconds of silence that are borne."""

    server: str
    credentials: Credentials
    scope: str
    ca_file: str = ""
    insecure: bool = False
    timeout: float = 60.0


class Transport:
    """Requests to one registry. Raises NodeError and InputError ``registry_*``."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._origin = origin(settings.server)
        token = settings.credentials.token
        self._authorization = f"Bearer {token}" if token else ""
        self._opener = urllib.request.OpenerDirector()
        # Plain HTTP is allowed to the node itself; a proxy would carry it elsewhere.
        local = is_loopback(self._origin[1])
        proxies = urllib.request.ProxyHandler({} if local else None)
        for handler in (proxies, urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(context=self._context())):
            self._opener.add_handler(handler)

    def url(self, path: str) -> str:
        """Of a path below the server."""
        return self.settings.server + path

    def send(
        self,
        method: str,
        url: str,
        accept: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        length: int = 0,
        patience: float | None = None,
    ) -> Answer:
        """One request, redirects of reads and one challenge included; the answer has one of the statuses ``accept``.

        ``body`` is called for each try and gives ``length`` bytes. ``patience`` replaces the timeout.
        """
        challenged = False
        hops = 0
        while True:
            answer = self._once(method, url, headers or {}, body, length, patience)
            try:
                if answer.status in _REDIRECTS:
                    hops += 1
                    url = self._redirected(method, answer, hops)
                elif answer.status == 401 and not challenged and origin(url) == self._origin:
                    challenged = True
                    self._authorize(url, challenges(answer.headers("WWW-Authenticate")))
                elif answer.status in accept:
                    return answer
                else:
                    raise self._refused(method, answer)
            except BaseException:
                answer.close()
                raise
            answer.close()

    def conceal(self, text: str) -> str:
        """``text`` of the server for a message: printable, short, and without our secrets."""
        text = self.settings.credentials.conceal(text)
        secret = self._authorization.partition(" ")[2]
        if secret:
            text = text.replace(secret, "(hidden)")
        return "".join(letter if letter.isprintable() else " " for letter in text[:300]).strip(" .")

    def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None,
        length: int,
        patience: float | None,
    ) -> Answer:
        request = urllib.request.Request(url, method=method, headers={"User-Agent": "gpuops.restore", **headers})
        if body is not None:
            request.data = body()
            request.add_header("Content-Length", str(length))
        if self._authorization and origin(url) == self._origin:
            request.add_header("Authorization", self._authorization)
        try:
            return Answer(self._opener.open(request, timeout=patience or self.settings.timeout), url)
        except urllib.error.URLError as error:
            raise unreachable(url, error.reason) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise unreachable(url, error) from error

    def _redirected(self, method: str, answer: Answer, hops: int) -> str:
        target = urllib.parse.urljoin(answer.url, answer.header("Location"))
        why = ""
        if method not in ("GET", "HEAD"):
            why = "a request that changes something is not sent elsewhere"
        elif hops > _MAX_HOPS:
            why = f"this is redirect number {hops}"
        elif not usable(target):
            why = "that is no URL to follow"
        elif not target.startswith("https:") and not answer.url.startswith("http:"):
            why = "it leads from HTTPS to plain HTTP"
        if why:
            raise redirect_refused(answer.url, target, why)
        require_safe(target, self.settings.insecure)
        return target

    def _authorize(self, url: str, found: Mapping[str, Mapping[str, str]]) -> None:
        """Answer a challenge, or raise InputError ``registry_denied``."""
        credentials = self.settings.credentials
        bearer = found.get("bearer") or {}
        if credentials.token:
            raise denied(url, "it does not accept the token")
        if bearer.get("realm"):
            self._authorization = "Bearer " + self._fetch_token(bearer)
        elif "basic" in found and credentials:
            self._authorization = credentials.basic()
        elif "basic" in found:
            raise denied(url, "it asks for a user and a password")
        else:
            raise denied(
                url, f"it asks for {self.conceal(', '.join(found)) or 'nothing known'}, which is not supported"
            )

    def _fetch_token(self, bearer: Mapping[str, str]) -> str:
        realm = bearer["realm"]
        if not usable(realm) or (self._origin[0] == "https" and not realm.startswith("https:")):
            raise redirect_refused(
                self.settings.server, realm, "it is named as the token server, and passwords go by HTTPS"
            )
        require_safe(realm, self.settings.insecure)
        query = {"scope": self.settings.scope}
        if bearer.get("service"):
            query["service"] = bearer["service"]
        if self.settings.credentials.username:
            query["account"] = self.settings.credentials.username
        url = realm + ("&" if "?" in realm else "?") + urllib.parse.urlencode(query)
        # What was valid before must not go to the token server, should that be at the registry's origin.
        self._authorization = ""
        headers = {"Authorization": self.settings.credentials.basic()} if self.settings.credentials else {}
        with self._once("GET", url, headers, None, 0, None) as answer:
            if answer.status in (401, 403):
                raise denied(url, "the token server does not know this user and password")
            if answer.status != 200:
                raise self._refused("GET", answer)
            data = answer.read(_MAX_TOKEN)
        try:
            document = strict_json.parse_object(data, _MAX_TOKEN)
        except StrictJsonError:
            document = {}
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise answer_invalid(url, "the token server's answer holds no token")
        return token

    def _refused(self, method: str, answer: Answer) -> RestoreError:
        """The failure that an unexpected status is."""
        text = self.conceal(_complaint(answer)) or "no reason given"
        shown = without_query(answer.url)
        details = {"status": answer.status, "url": shown, "retry_after": answer.header("Retry-After")[:40]}
        if answer.status in (401, 403):
            return denied(answer.url, text)
        if answer.status in _PASSING:
            return NodeError(
                "registry_failed",
                f"The registry answered {answer.status} to {method} {shown}: {text}.",
                "Run again later; look at the registry's log if it stays so.",
                outcome=RETRYABLE,
                details=details,
            )
        return NodeError(
            "registry_refused",
            f"The registry answered {answer.status} to {method} {shown}: {text}.",
            "Look up what the registry allows: names, sizes and kinds of manifests may be restricted.",
            details=details,
        )

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.settings.ca_file or None)
        except OSError as error:  # ssl.SSLError is one
            raise InputError(
                "registry_ca_file_invalid",
                f"The file ca_file, {self.settings.ca_file}, has no usable certificates: {error.strerror or error}.",
                "Give a file of PEM certificates on the node.",
            ) from error


def _complaint(answer: Answer) -> str:
    """What the body of an error says, as the distribution specification lays it out."""
    try:
        data = answer.read(_MAX_COMPLAINT)
        errors = strict_json.parse_object(data, _MAX_COMPLAINT)["errors"]
        return "; ".join(f"{entry.get('code')}: {entry.get('message')}" for entry in errors[:3])
    except (RestoreError, StrictJsonError, KeyError, TypeError, AttributeError):
        return ""
