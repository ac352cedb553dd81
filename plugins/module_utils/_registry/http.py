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
from .._core.errors import RETRYABLE, TERMINAL, InputError, NodeError, RestoreError
from .._core.strict_json import StrictJsonError
from .credentials import Credentials, challenges
from .reference import is_loopback, is_usable_url, origin, require_safe, without_query

CHUNK = 1 << 20
_MAX_HOPS = 5
#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h, for which Python's ssl has no name.
_NO_CHECK_TIME = 0x200000
_MAX_TOKEN = 1 << 20
_MAX_ERROR_BODY = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504, 507)

Body = Callable[[], Iterable[bytes]]


class Response:
    """A response whose body is read as it comes; close it, or use it as a context manager."""

    def __init__(self, response: Any, url: str) -> None:
        self._response = response
        self.url = url
        self.status = int(response.status)

    def __enter__(self) -> Response:
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
    """How to talk to the registry."""

    #: A checked URL, as ``reference.server_url`` gives it.
    server: str
    credentials: Credentials
    #: What a token is requested for, as ``repository:team/app:pull``.
    scope: str
    #: A file of PEM certificates; empty: those of the system.
    ca_file: str = ""
    #: PEM of the one certificate that the server must have, in place of all others.
    certificate: str = ""
    #: Whether plain HTTP is allowed beyond the node itself.
    insecure: bool = False
    #: Seconds that the registry may be silent.
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
        for handler in (proxies, urllib.request.HTTPHandler()):
            self._opener.add_handler(handler)
        self._secure = False
        if self._origin[0] == "https" or not local or settings.ca_file or settings.certificate:
            self._allow_https()

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
        timeout: float | None = None,
    ) -> Response:
        """One request, redirects of reads and one challenge included; the response has one of the statuses ``accept``.

        ``body`` is called for each attempt and gives ``length`` bytes. ``timeout``: instead of that of the settings.
        """
        challenged = False
        hops = 0
        while True:
            response = self._send_once(method, url, headers or {}, body, length, timeout)
            try:
                if response.status in _REDIRECTS:
                    hops += 1
                    url = self._redirected(method, response, hops)
                elif response.status == 401 and not challenged and origin(url) == self._origin:
                    challenged = True
                    self._authorize(url, challenges(response.headers("WWW-Authenticate")))
                elif response.status in accept:
                    return response
                else:
                    raise self._refused(method, response)
            except BaseException:
                response.close()
                raise
            response.close()

    def conceal(self, text: str) -> str:
        """``text`` of the server for a message: printable, short, and without our secrets."""
        text = self.settings.credentials.conceal(text)
        secret = self._authorization.partition(" ")[2]
        if secret:
            text = text.replace(secret, "(hidden)")
        return "".join(letter if letter.isprintable() else " " for letter in text[:300]).strip(" .")

    def _send_once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None,
        length: int,
        timeout: float | None,
    ) -> Response:
        request = urllib.request.Request(url, method=method, headers={"User-Agent": "gpuops.restore", **headers})
        if body is not None:
            request.data = body()
            request.add_header("Content-Length", str(length))
        if self._authorization and origin(url) == self._origin:
            request.add_header("Authorization", self._authorization)
        if request.type == "https":
            self._allow_https()
        try:
            return Response(self._opener.open(request, timeout=timeout or self.settings.timeout), url)
        except urllib.error.URLError as error:
            raise unreachable(url, error.reason) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise unreachable(url, error) from error

    def _redirected(self, method: str, response: Response, hops: int) -> str:
        target = urllib.parse.urljoin(response.url, response.header("Location"))
        why = ""
        if method not in ("GET", "HEAD"):
            why = "a request that changes something is not sent elsewhere"
        elif hops > _MAX_HOPS:
            why = f"this is redirect number {hops}"
        elif not is_usable_url(target):
            why = "that is no URL to follow"
        elif not target.startswith("https:") and not response.url.startswith("http:"):
            why = "it leads from HTTPS to plain HTTP"
        if why:
            raise redirect_refused(response.url, target, why)
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
        if not is_usable_url(realm) or (self._origin[0] == "https" and not realm.startswith("https:")):
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
        with self._send_once("GET", url, headers, None, 0, None) as response:
            if response.status in (401, 403):
                raise denied(url, "the token server does not know this user and password")
            if response.status != 200:
                raise self._refused("GET", response)
            data = response.read(_MAX_TOKEN)
        try:
            document = strict_json.parse_object(data, _MAX_TOKEN)
        except StrictJsonError:
            document = {}
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise response_invalid(url, "the token server's answer holds no token")
        return token

    def _refused(self, method: str, response: Response) -> RestoreError:
        """The failure that an unexpected status is."""
        text = self.conceal(_error_text(response)) or "no reason given"
        shown = without_query(response.url)
        details = {"status": response.status, "url": shown, "retry_after": response.header("Retry-After")[:40]}
        if response.status in (401, 403):
            return denied(response.url, text)
        if response.status in _TRANSIENT_STATUSES:
            return NodeError(
                "registry_failed",
                f"The registry answered {response.status} to {method} {shown}: {text}.",
                "Run again later; look at the registry's log if it stays so.",
                outcome=RETRYABLE,
                details=details,
            )
        return NodeError(
            "registry_refused",
            f"The registry answered {response.status} to {method} {shown}: {text}.",
            "Look up what the registry allows: names, sizes and kinds of manifests may be restricted.",
            details=details,
        )

    def _allow_https(self) -> None:
        """The system's certificates are read where they can be needed: that takes longer than a request on the node."""
        if not self._secure:
            self._opener.add_handler(urllib.request.HTTPSHandler(context=self._context()))
            self._secure = True

    def _context(self) -> ssl.SSLContext:
        if self.settings.certificate:
            return pinned(self.settings.certificate)
        try:
            return ssl.create_default_context(cafile=self.settings.ca_file or None)
        except OSError as error:  # ssl.SSLError is one
            raise InputError(
                "registry_ca_file_invalid",
                f"The file ca_file, {self.settings.ca_file}, has no usable certificates: {error.strerror or error}.",
                "Give a file of PEM certificates on the node.",
            ) from error


def pinned(certificate: str) -> ssl.SSLContext:
    """For a server with this certificate of its own. Raises InputError ``registry_certificate_invalid``.

    Its dates do not count: it was made a moment ago by a node whose clock may be ahead of ours.
    """
    try:
        context = ssl.create_default_context(cadata=certificate)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InputError(
            "registry_certificate_invalid",
            "The option certificate holds no usable certificate in PEM.",
            "Give it as containerd_checkpoint_serve has returned it.",
        ) from error
    context.verify_flags |= _NO_CHECK_TIME
    return context


def denied(url: str, why: str) -> InputError:
    """The error for a registry that refuses the user."""
    return InputError(
        "registry_denied",
        f"The registry at {without_query(url)} denies it: {why}.",
        "Give username and password, token or auth_file of a user who may do this in that repository.",
    )


def response_invalid(url: str, why: str) -> InputError:
    """The error for a registry that does not keep to the protocol."""
    return InputError(
        "registry_answer_invalid",
        f"The answer of the registry at {without_query(url)} is not usable: {why}.",
        "See that a registry is what answers there, and that it is the right one.",
    )


def redirect_refused(url: str, target: str, why: str) -> InputError:
    """The error for a redirect that is not followed."""
    return InputError(
        "registry_redirect_refused",
        f"The registry at {without_query(url)} leads to {without_query(target)}: {why}.",
        "Mend the registry's own idea of its URL (behind a proxy: its host and X-Forwarded-Proto), or use another.",
    )


def unreachable(url: str, reason: object) -> RestoreError:
    """The error for a registry that does not respond, or not to the end."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return NodeError(
            "registry_tls",
            f"The certificate of {without_query(url)} is not trusted: {reason.verify_message}.",
            "Give ca_file with the certificate of the authority that signed it, or use the name that it is for.",
        )
    if isinstance(reason, ssl.SSLError) and "EOF" not in str(reason.reason):
        return NodeError(
            "registry_tls",
            f"There is no TLS with {without_query(url)}: {reason.reason or reason}.",
            "See that it speaks HTTPS; a registry with plain HTTP is given by server: http://...",
        )
    why = str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
    transient = not isinstance(reason, ValueError)
    return NodeError(
        "registry_unreachable",
        f"The registry at {without_query(url)} does not answer: {why.strip('. ')}.",
        "See that it runs and that this node reaches it, then run again.",
        outcome=RETRYABLE if transient else TERMINAL,
        details={"url": without_query(url)},
    )


def _error_text(response: Response) -> str:
    """What the body of an error says, as the distribution specification lays it out."""
    try:
        data = response.read(_MAX_ERROR_BODY)
        errors = strict_json.parse_object(data, _MAX_ERROR_BODY)["errors"]
        return "; ".join(f"{entry.get('code')}: {entry.get('message')}" for entry in errors[:3])
    except (RestoreError, StrictJsonError, KeyError, TypeError, AttributeError):
        return ""
