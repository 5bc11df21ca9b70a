"""Requests to a registry: authorised, redirected with care, tried again, and answered by an error that helps.

Credentials go to the registry's own origin only, whatever a redirect or an upload's ``Location`` says: they are added
per hop, where the hop's scheme, host and port are those of the registry (GHSA-vh4v-2xq2-g5cg).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import urllib3.exceptions as wire

from shiplap.errors import RegistryError
from shiplap.oci.addresses import bare
from shiplap.registry.address import Reach
from shiplap.registry.authority import Authority, Scopes, Site
from shiplap.registry.connection import Answer, Body, Connections, Origin, join_url, split_url
from shiplap.registry.failure import ERROR_LIMIT, Redactor, refused, unreachable
from shiplap.registry.limits import asked_wait
from shiplap.registry.patience import TRANSIENT, Patience, TryAgain

MOST_REDIRECTS = 10

T = TypeVar("T")


class Call(NamedTuple):
    """A request: ``target`` is a path at the site or a whole address; ``body`` makes a fresh body for every try."""

    method: str
    site: Site
    target: str
    scopes: Scopes
    headers: dict[str, str] = {}
    body: Callable[[], bytes | Body] | None = None
    accept: frozenset[int] = frozenset({200})

    @property
    def url(self) -> str:
        return join_url(str(self.site.origin), self.target)


class Transport:
    """Performs calls. Thread-safe."""

    def __init__(self, connections: Connections, authority: Authority, patience: Patience, redactor: Redactor) -> None:
        self.connections = connections
        self.patience = patience
        self._authority = authority
        self._redactor = redactor

    def perform(self, call: Call, consume: Callable[[Answer], T]) -> T:
        """Send ``call`` and give its answer to ``consume``; both are tried again together while that may help.

        Raises RegistryError.
        """
        return self.patience.insist(lambda: self.attempt(call, consume))

    def attempt(self, call: Call, consume: Callable[[Answer], T]) -> T:
        """As ``perform``, once; raises TryAgain where another try may help."""
        try:
            with self._follow(call) as answer:
                self.expect(call, answer)
                return consume(answer)
        except (wire.HTTPError, OSError) as error:
            raise self.lost(call, error) from None

    def open(self, call: Call) -> Answer:
        """Send ``call``, trying again as needed, and return the answer with its body unread."""

        def once() -> Answer:
            try:
                answer = self._follow(call)
                try:
                    self.expect(call, answer)
                except BaseException:
                    answer.__exit__()
                    raise
                return answer
            except (wire.HTTPError, OSError) as error:
                raise self.lost(call, error) from None

        return self.patience.insist(once)

    def lost(self, call: Call, error: Exception) -> Exception:
        """The failure for a request or body that broke: TryAgain if that may help, else a RegistryError."""
        failure, transient = unreachable(error, call.method, call.url, call.site.host)
        if not transient:
            return failure
        # Nobody listening, or no such name, seldom mends itself within seconds: do not let people wait for it.
        brief = failure.code in ("connection-refused", "unknown-host")
        return TryAgain(failure, limit=3 if brief else 1 << 30)

    def expect(self, call: Call, answer: Answer) -> None:
        """Return if the answer's status is one that was asked for."""
        if answer.status in call.accept:
            return
        body = b"" if call.method == "HEAD" else answer.read(ERROR_LIMIT)
        login = self._authority.login(call.site)
        failure = refused(
            call.method, answer.url, answer.status, body, self._redactor, call.site.host, answer.headers, login
        )
        # A signed address that we were sent to may have expired on the way; the registry gives a fresh one.
        stale = answer.status in (401, 403) and answer.origin != call.site.origin
        if answer.status in TRANSIENT or stale:
            raise TryAgain(failure, asked_wait(answer.headers))
        raise failure

    def _follow(self, call: Call) -> Answer:
        url = call.url
        renewals = hops = 0
        while hops <= MOST_REDIRECTS:
            self.patience.check()
            origin, _target = split_url(url)
            own = origin == call.site.origin
            sent = dict(call.headers)
            authorization = self._authority.header(call.site, call.scopes) if own else None
            if authorization:
                sent["Authorization"] = authorization
            answer = self.connections.exchange(
                call.method,
                url,
                sent,
                call.body() if call.body else None,
                limit=self._limit(origin, call.site),
                verify=call.site.verify if own else True,
            )
            if answer.status == 401 and own and renewals < 2:
                asked = answer.headers.get("WWW-Authenticate", "")
                renewals += 1
                if asked and self._authority.renew(call.site, call.scopes, asked, authorization):
                    with answer:
                        answer.discard()
                    continue
                return answer
            location = answer.headers.get("Location")
            reading = call.method in ("GET", "HEAD")
            if not location or answer.status not in ((301, 302, 303, 307, 308) if reading else (307, 308)):
                return answer
            with answer:
                answer.discard()
            hops += 1
            url = self._redirected(url, location, call.site)
        raise RegistryError(f"{bare(call.url)}: too many redirects", code="redirects")

    def _redirected(self, url: str, location: str, site: Site) -> str:
        target = join_url(url, location)
        if split_url(url)[0].scheme == "https" and split_url(target)[0].scheme != "https":
            raise RegistryError(
                f"{site.host} redirects from https to {bare(target)}",
                code="forbidden-redirect",
                hint="the registry's storage has to be reached by https too",
            )
        return target

    def _limit(self, origin: Origin, site: Site) -> Reach:
        if origin == site.origin:
            return Reach.LINK
        return min(self.connections.reach(site.origin), Reach.LOOPBACK)
