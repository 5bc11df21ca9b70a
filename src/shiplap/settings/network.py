"""How registries are reached: rules of registries.conf, credentials. Values only: no file is read here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from shiplap.settings.proxies import Proxies


class Credential(NamedTuple):
    """What proves who we are: a name with a password, an identity (refresh) token, or a ready bearer token.

    Its ``repr`` and ``str`` never show a secret.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credential(username={self.username!r}, …)"

    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        return tuple(text for text in (self.password, self.identity_token, self.registry_token) if text)


class Mirror(NamedTuple):
    """Another place that holds the same images. ``pull`` is ``all``, ``digest-only`` or ``tag-only``.

    ``insecure`` is None where the file does not say.
    """

    location: str
    insecure: bool | None = None
    pull: str = "all"


class RegistryRule(NamedTuple):
    """One ``[[registry]]`` of registries.conf; ``insecure`` is None where the file does not say."""

    prefix: str
    location: str
    insecure: bool | None = None
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()

    def matches(self, name: str) -> int:
        """How much of the start of ``name`` (``host/path[:tag][@digest]``) the prefix covers; 0 for no match."""
        if self.prefix.startswith("*."):
            # ``*.example.com`` stands for every host below example.com, not for example.com itself.
            host = name.partition("/")[0].partition(":")[0]
            return len(host) if host.endswith(self.prefix[1:]) and len(host) >= len(self.prefix) else 0
        if not name.startswith(self.prefix):
            return 0
        return len(self.prefix) if name[len(self.prefix) : len(self.prefix) + 1] in ("", "/", ":", "@") else 0


class Endpoint(NamedTuple):
    """Where to ask: ``host[:port]``, the repository's path there; ``insecure`` None means that no file says."""

    host: str
    path: str
    insecure: bool | None = None
    mirror: bool = False


def _no_credentials(host: str, path: str) -> Credential | None:
    return None


class Network(NamedTuple):
    """All a registry client needs to know. ``credentials(host, path)`` may run a credential helper and raise."""

    rules: tuple[RegistryRule, ...] = ()
    proxies: Proxies = Proxies()
    certificate_dirs: tuple[str, ...] = ()
    credentials: Callable[[str, str], Credential | None] = _no_credentials

    def rule_for(self, name: str) -> RegistryRule | None:
        """The rule with the longest matching prefix."""
        fitting = [rule for rule in self.rules if rule.matches(name)]
        return max(fitting, key=lambda rule: len(rule.prefix), default=None)

    def insecure_host(self, host: str) -> bool:
        """True if a file names ``host[:port]`` itself, as a registry or a mirror, as insecure."""
        return bool(self.security_of(host))

    def security_of(self, host: str) -> bool | None:
        """The ``insecure`` that a file says of ``host[:port]`` itself, as a registry or a mirror; None if none does."""
        said = [m.insecure for r in self.rules for m in r.mirrors if m.location.partition("/")[0] == host]
        rule = self.rule_for(host)
        if rule is not None and rule.location.partition("/")[0] in (host, ""):
            said.insert(0, rule.insecure)
        return True if True in said else next((each for each in said if each is not None), None)

    def endpoints(self, host: str, path: str, target: str = "") -> tuple[Endpoint, ...]:
        """Where to look for an image, mirrors first; ``target`` is a tag or a digest. Empty if the image is blocked.

        The last one is the registry itself, the only one that is ever written to.
        """
        name = f"{host}/{path}"
        by_digest = ":" in target
        rule = self.rule_for(name + (f"@{target}" if by_digest else f":{target}" if target else ""))
        if rule is None:
            return (Endpoint(host, path),)
        if rule.blocked:
            return ()
        rest = name[rule.matches(name) or len(name) :]
        found = []
        for mirror in rule.mirrors:
            if mirror.pull == "all" or (mirror.pull == "digest-only") == by_digest:
                mirror_host, _, mirror_path = (mirror.location + rest).partition("/")
                found.append(Endpoint(mirror_host, mirror_path, mirror.insecure, mirror=True))
        own_host, _, own_path = (rule.location + rest if rule.location else name).partition("/")
        return (*found, Endpoint(own_host, own_path, rule.insecure))
