# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry does to us, as errors of the tree."""

from __future__ import annotations

import ssl

from .._core.errors import RETRYABLE, TERMINAL, InputError, NodeError, RestoreError
from .reference import without_query


def denied(url: str, why: str) -> InputError:
    """The registry does not let us."""
    return InputError(
        "registry_denied",
        f"The registry at {without_query(url)} denies it: {why}.",
        "Give username and password, token or auth_file of a user who may do this in that repository.",
    )


def answer_invalid(url: str, why: str) -> InputError:
    """The registry does not keep to the protocol."""
    return InputError(
        "registry_answer_invalid",
        f"The answer of the registry at {without_query(url)} is not usable: {why}.",
        "See that a registry is what answers there, and that it is the right one.",
    )


def redirect_refused(url: str, target: str, why: str) -> InputError:
    """The registry sends us where we do not go."""
    return InputError(
        "registry_redirect_refused",
        f"The registry at {without_query(url)} leads to {without_query(target)}: {why}.",
        "Mend the registry's own idea of its URL (behind a proxy: its host and X-Forwarded-Proto), or use another.",
    )


def unreachable(url: str, reason: object) -> RestoreError:
    """No answer, or none that came to its end."""
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
    passing = not isinstance(reason, ValueError)
    return NodeError(
        "registry_unreachable",
        f"The registry at {without_query(url)} does not answer: {why.strip('. ')}.",
        "See that it runs and that this node reaches it, then run again.",
        outcome=RETRYABLE if passing else TERMINAL,
        details={"url": without_query(url)},
    )
