"""What goes wrong with a registry, told so that it can be repaired; secrets are taken out of every word."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

import msgspec
import urllib3.exceptions as wire

from shiplap.errors import RegistryError
from shiplap.oci.addresses import bare
from shiplap.oci.manifest import prepare
from shiplap.registry.limits import rate_limit

ERROR_LIMIT = 64 << 10
"""Most bytes that are read of an error body."""


class Redactor:
    """Takes known secrets, control characters and excess length out of a text that came from elsewhere."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def hide(self, *secrets: str) -> None:
        # Very short ones are left: they would tear ordinary words apart, and guard nothing.
        self._secrets.update(secret for secret in secrets if len(secret) >= 4)

    def clean(self, text: str, limit: int = 300) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "…")
        return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text)[:limit].strip()


class _Complaint(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _ErrorBody(msgspec.Struct, frozen=True):
    errors: tuple[_Complaint, ...] = ()


def refused(
    method: str,
    url: str,
    status: int,
    body: bytes,
    redactor: Redactor,
    login_host: str,
    headers: Mapping[str, str],
    login: str = "",
) -> RegistryError:
    """The error for an answer that is not the one asked for; ``login_host`` is what one would log in to.

    ``login`` is the name that one is logged in by, "" if none was used.
    """
    media_type = headers.get("Content-Type", "")
    try:
        complaints = msgspec.json.decode(body, type=_ErrorBody).errors
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        complaints = ()
    said = "; ".join(": ".join(word for word in (c.code, c.message) if word) for c in complaints[:3])
    if not said and not media_type.startswith("text/html"):
        said = body.decode("utf-8", "replace")
    said = redactor.clean(said)
    codes = {complaint.code for complaint in complaints}
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    code, hint = _advice(status, codes, login_host, said)
    if code == "rate-limited":
        limited, hint = rate_limit(headers, login_host, login)
        phrase = f"{phrase}: {limited}"
    message = f"{method} {redactor.clean(bare(url))}: {phrase}" + (f": {said}" if said else "")
    return RegistryError(message, status=status, code=code, hint=hint)


class _Advice(NamedTuple):
    code: str
    hint: str


def _advice(status: int, codes: set[str], host: str, said: str) -> _Advice:
    if status == 401:
        return _Advice(code="unauthorized", hint=f"the image may not exist or may be private: shiplap login {host}")
    if status == 403:
        return _Advice(
            code="denied",
            hint=f"check that the account may do this, or log in with another one: shiplap login {host}",
        )
    if status == 429 or "TOOMANYREQUESTS" in codes:
        return _Advice(code="rate-limited", hint="wait; or log in; or name a mirror in registries.conf")
    if status == 404:
        if "MANIFEST_UNKNOWN" in codes:
            return _Advice(code="manifest-unknown", hint="check the tag or digest; the repository has no such image")
        return _Advice(code="not-found", hint="check the spelling of the repository and the tag")
    if status == 400 and "HTTP request" in said and "HTTPS server" in said:
        return _Advice(
            code="http-to-https",
            hint=f"{host} speaks https: take insecure = true out of registries.conf, or set it to false",
        )
    if status == 413:
        return _Advice(
            code="request-too-large", hint=f"a proxy before {host} limits what may be sent: its operator can raise that"
        )
    if status >= 500:
        return _Advice(code="registry-failed", hint="the registry is in trouble: try again later")
    return _Advice(
        code="refused", hint=f"check that {host} is a registry and that no proxy answers for it; its log may say more"
    )


def unreachable(error: Exception, method: str, url: str, host: str) -> tuple[RegistryError, bool]:
    """The error for a request without an answer, and whether another try may help."""
    no_answer = partial(_no_answer, f"{method} {bare(url)}")
    if isinstance(error, wire.ProxyError):
        return no_answer("the proxy does not answer", code="proxy", hint="check HTTPS_PROXY and NO_PROXY"), True
    if isinstance(error, wire.SSLError):
        reason = error.args[0] if error.args and isinstance(error.args[0], BaseException) else error
        return _tls(reason, f"{method} {bare(url)}", host)
    if isinstance(error, wire.NameResolutionError):
        return no_answer("no such host", code="unknown-host", hint="check the name and the DNS settings"), True
    # Before the time-outs: urllib3 derives this one from them.
    if isinstance(error, wire.NewConnectionError):
        listens = f"check that a registry listens on {host}"
        if "refused" in str(error):
            return no_answer("connection refused", code="connection-refused", hint=listens), True
        return no_answer("cannot connect", code="unreachable", hint=listens), True
    again = "check the network, or try again later"
    if isinstance(error, (wire.ConnectTimeoutError, wire.ReadTimeoutError, TimeoutError)):
        return no_answer("no answer in time", code="timeout", hint=again), True
    return no_answer("connection lost", code="connection-lost", hint=again), True


def _tls(reason: BaseException, request: str, host: str) -> tuple[RegistryError, bool]:
    no_answer = partial(_no_answer, request)
    text = str(reason)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return no_answer(
            f"certificate not accepted: {reason.verify_message or 'unknown authority'}",
            code="tls-certificate",
            hint=f"put the authority's certificate at /etc/containers/certs.d/{host}/ca.crt or name it in SSL_CERT_FILE",
        ), False
    if "ALERT" in text and any(mark in text for mark in _ABOUT_OURS):
        return no_answer(
            "the registry did not accept our certificate, or wants one",
            code="client-certificate",
            hint=f"put it at ~/.config/containers/certs.d/{host}/client.cert, and its key beside it at client.key",
        ), False
    if any(mark in text for mark in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER", "record layer")):
        return no_answer(
            "the server does not speak https",
            code="https-to-http",
            hint=f'if plain http is meant, add to registries.conf: [[registry]] location = "{host}" insecure = true',
        ), False
    return no_answer("TLS failed", code="tls", hint="check the registry's certificate and protocol"), True


# RFC 8446, section 6.2: alerts about the certificate of whoever gets them, in the names of OpenSSL.
_ABOUT_OURS = (
    "CERTIFICATE_REQUIRED",
    "BAD_CERTIFICATE",
    "UNSUPPORTED_CERTIFICATE",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_UNKNOWN",
    "UNKNOWN_CA",
)


def _no_answer(request: str, why: str, *, code: str, hint: str) -> RegistryError:
    return RegistryError(f"{request}: {why}", code=code, hint=hint)


prepare(_ErrorBody)
