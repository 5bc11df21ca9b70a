"""The one reader of environment and configuration files; everything it returns is frozen.

``load`` looks at the environment alone and is cheap. Files are read when they are first needed: ``Settings.network``
for a registry, ``Settings.build_proxies`` for a build's proxy arguments.
"""

from __future__ import annotations

from shiplap.settings.environment import Settings, load
from shiplap.settings.proxies import Proxies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shiplap.settings.network import Credential, Endpoint, Mirror, Network, RegistryRule

__all__ = ["Credential", "Endpoint", "Mirror", "Network", "Proxies", "RegistryRule", "Settings", "load"]


def __getattr__(name: str) -> Any:
    """What only those need who speak with a registry."""
    if name not in __all__:
        raise AttributeError(f"module 'shiplap.settings' has no attribute {name!r}")
    from shiplap.settings import network

    return getattr(network, name)
