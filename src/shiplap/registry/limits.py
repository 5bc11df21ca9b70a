"""What a registry says of its rate limits, in words that a person can act on.

Headers: ``RateLimit-Limit: 100;w=21600`` (amount; window in seconds) and ``Docker-RateLimit-Source`` of Docker Hub,
``RateLimit-Reset`` (draft-ietf-httpapi-ratelimit-headers, seconds), ``X-RateLimit-Reset`` (GitHub, seconds since the epoch),
``Retry-After`` (RFC 9110, section 10.2.3).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def retry_after(header: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, section 10.2.3), None if it says nothing readable."""
    text = (header or "").strip()[:64]
    if text.isascii() and text.isdigit():
        return float(min(int(text), 1 << 31))
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds until a registry wants to be asked again, None if it does not say."""
    wait = retry_after(headers.get("Retry-After"))
    if wait is None:
        wait = _number(headers.get("RateLimit-Reset"))
    if wait is None:
        at = _number(headers.get("X-RateLimit-Reset"))
        wait = max(at - time.time(), 0.0) if at is not None else None
    return wait


def rate_limit(headers: Mapping[str, str], host: str, login: str) -> tuple[str, str]:
    """What to say and what to do after a 429 of ``host``; ``login`` is the name that was used, "" if none was.

    Header values are not quoted but for the address or name that the limit is counted for.
    """
    granted = re.match(r"\s*(\d{1,9})(?:\s*;\s*w=(\d{1,9}))?", headers.get("RateLimit-Limit", ""))
    amount = ""
    if granted:
        window = f" in {span(float(granted.group(2)))}" if granted.group(2) else ""
        amount = f", {granted.group(1)} requests{window}"
    source = headers.get("Docker-RateLimit-Source", "")
    counted = f", counted for {source}" if re.fullmatch(r"[0-9A-Za-z.:_-]{1,64}", source) else ""
    who = f"asked as {login}" if login else "asked without a login"
    said = f"the rate limit of {host} is reached ({who}{amount}{counted})"
    wait = asked_wait(headers)
    patience = f"wait {span(wait)}" if wait else "wait"
    another = "log in with an account that may do more" if login else "log in, which often grants more"
    return said, f"{patience}; or {another}: shiplap login {host}; or name a mirror of it in registries.conf"


def span(seconds: float) -> str:
    """A length of time, in the largest unit that loses little: ``45 seconds``, ``6 hours``."""
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * unit or seconds == unit:
            return _counted(-(-seconds // unit), name)
    return _counted(-(-seconds // 1), "second")


def _counted(number: float, name: str) -> str:
    return f"{number:.0f} {name}" + ("" if number == 1 else "s")


def _number(text: str | None) -> float | None:
    plain = (text or "").partition(";")[0].strip()
    return float(plain) if re.fullmatch(r"\d{1,12}", plain) else None
