"""Logins: checked with the registry, kept where docker keeps them."""

from __future__ import annotations

from typing import NamedTuple

from shiplap.registry.login import check_login
from shiplap.settings import Settings
from shiplap.settings.credentials import AuthFiles, erase_login, registry_name, store_login


class Login(NamedTuple):
    """What became of a login or logout: the registry's name, the file or helper concerned ("" if none was).

    ``winner`` is another file that holds a login for the registry and is read first.
    """

    host: str
    place: str
    winner: str = ""

    @property
    def helper(self) -> bool:
        """Whether a credential helper keeps it, so not a file in plain text."""
        return self.place.startswith("docker-credential-")


def login(host: str, username: str, password: str, settings: Settings) -> Login:
    """Check the pair with ``host`` and keep it, or the identity token that the registry gives in its place.

    Raises RegistryError and UsageError; then nothing is kept.
    """
    host = registry_name(host)
    credential = check_login(settings.network(), host, username, password)
    place = store_login(settings.login_file, host, credential, settings.helper_path)
    winner = AuthFiles(settings.auth_files, settings.helper_path).source(host)
    return Login(host, place, winner if winner != settings.login_file else "")


def logout(host: str, settings: Settings) -> Login:
    """Forget the login; ``place`` is empty if there was none."""
    host = registry_name(host)
    known = erase_login(settings.login_file, host, settings.helper_path)
    winner = AuthFiles(settings.auth_files, settings.helper_path).source(host)
    return Login(host, settings.login_file if known else "", winner)
