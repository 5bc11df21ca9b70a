"""Does a registry accept a name and a password? Where the answer is kept is the business of settings."""

from __future__ import annotations

import threading

from shiplap.errors import RegistryError
from shiplap.registry.authority import Authority
from shiplap.registry.connection import Connections, Timing
from shiplap.registry.failure import Redactor
from shiplap.registry.patience import Patience
from shiplap.registry.sites import Sites
from shiplap.registry.transport import Call, Transport
from shiplap.settings import Credential, Network


def check_login(
    network: Network,
    host: str,
    username: str,
    password: str,
    *,
    timing: Timing = Timing(),  # noqa: B008
) -> Credential:
    """What to keep if the registry at ``host`` accepts the pair, else raise RegistryError(code="login-refused").

    That is the pair, or an identity token if the registry's token server gives one in its place (token.md, offline_token).
    """
    offered = Credential(username, password)
    asking = network._replace(credentials=lambda _host, _path: offered)
    redactor = Redactor()
    redactor.hide(password)
    patience = Patience(timing, threading.Event())
    connections = Connections(asking, timing)
    try:
        site = Sites(asking, connections).host(host)
        authority = Authority(asking, connections, patience, redactor, offline=True)
        transport = Transport(connections, authority, patience, redactor)
        transport.perform(Call("GET", site, "/v2/", ()), lambda _answer: None)
        if authority.identity_token:
            return Credential(username, "", authority.identity_token)
        return offered
    except RegistryError as error:
        if error.status in (401, 403):
            raise RegistryError(
                f"{host} does not accept this name and password",
                status=error.status,
                code="login-refused",
                hint="check both; many registries want a token made on their web page instead of the password",
            ) from None
        raise
    finally:
        connections.close()
