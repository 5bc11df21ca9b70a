"""Logins: checked with the registry, kept where docker keeps them."""

from __future__ import annotations

from shiplap.registry.login import check_login
from shiplap.settings import Credential, Settings
from shiplap.settings.credentials import erase_login, store_login


def login(host: str, username: str, password: str, settings: Settings) -> str:
    """Check the pair with ``host`` and keep it; the file it is kept in (or the helper's)."""
    check_login(settings.network(), host, username, password)
    store_login(settings.login_file, host, Credential(username, password), settings.helper_path)
    return settings.login_file


def logout(host: str, settings: Settings) -> bool:
    """Forget the login; False if there was none."""
    return erase_login(settings.login_file, host, settings.helper_path)
