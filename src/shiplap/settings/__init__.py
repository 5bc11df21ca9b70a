"""The one reader of environment and configuration files; everything it returns is frozen.

``load`` looks at the environment alone and is cheap. Files are read when they are first needed: ``Settings.network``
for a registry, ``Settings.build_proxies`` for a build's proxy arguments.
"""

from __future__ import annotations

from shiplap.settings.environment import Settings, load
from shiplap.settings.network import Credential, Endpoint, Mirror, Network, Proxies, RegistryRule

__all__ = ["Credential", "Endpoint", "Mirror", "Network", "Proxies", "RegistryRule", "Settings", "load"]
