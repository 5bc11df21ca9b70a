"""Who we are at which registry: auth.json, docker's config.json, credential helpers; and logging in and out.

Formats: containers-auth.json(5); docker/cli ``config.json``; helpers: the protocol of docker-credential-helpers.
A helper that fails is an error, never a reason to look elsewhere (CVE-2021-41092). No message here holds file content.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from shiplap.errors import Place, RegistryError, UsageError
from shiplap.settings.documents import read_json, wrong
from shiplap.settings.network import Credential

"""Largest configuration file that is read, in bytes."""

HELPER_SECONDS = 60
"""How long a credential helper may take (it may ask its user something)."""

HUB = "https://index.docker.io/v1/"
"""The name under which docker keeps the credentials of docker.io."""

_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")


class AuthFiles(NamedTuple):
    """The files that may hold credentials, the first that knows a registry wins; ``helper_path`` is a PATH."""

    files: tuple[str, ...]
    helper_path: str

    def find(self, host: str, path: str = "") -> Credential | None:
        """The credential for a repository, None for anonymous. Raises UsageError or RegistryError."""
        for file in self.files:
            found = self._in_file(file, host, path)
            if found is not None:
                return found
        return None

    def source(self, host: str) -> str:
        """The file that speaks for a registry as a whole, "" if none does. Raises UsageError or RegistryError."""
        return next((file for file in self.files if self._in_file(file, host, "") is not None), "")

    def _in_file(self, file: str, host: str, path: str) -> Credential | None:
        document = read_json(file)
        names = _HUB_NAMES if host in _HUB_NAMES else (host,)
        helper, server = helper_for(document, names, file)
        if helper:
            found = ask_helper(helper, server, self.helper_path)
            if found is not None:
                return found
        auths = _table(document, "auths", file)
        known = {_plain(key): value for key, value in auths.items()}
        for name in names:
            full = f"{name}/{path}" if path else name
            while full:
                if full in known:
                    return _credential(known[full], file)
                full = full.rpartition("/")[0]
        return None


def registry_name(text: str) -> str:
    """``host[:port]`` out of what people write for a registry (``https://index.docker.io/v1/``). Raises UsageError."""
    host = text.partition("://")[2] if "://" in text else text
    host = host.partition("/")[0].lower()
    if not re.fullmatch(r"[a-z0-9._-]+(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?", host):
        raise UsageError(
            "a login is for a registry, HOST or HOST:PORT",
            code="registry-name",
            hint="for example: registry.example:5000",
        )
    return "docker.io" if host in _HUB_NAMES else host


def store_login(file: str, host: str, credential: Credential, helper_path: str) -> str:
    """Remember ``credential`` for ``host``: in the helper that ``file`` names, else in ``file`` (0600, atomic).

    Returns where it is now: the helper's name or the file.
    """
    import base64

    document = read_json(file)
    names = _HUB_NAMES if host in _HUB_NAMES else (host,)
    helper, server = helper_for(document, names, file)
    entry: dict[str, str] = {}
    if helper:
        import json

        name = "<token>" if credential.identity_token else credential.username
        secret = credential.identity_token or credential.password
        request = json.dumps({"ServerURL": server, "Username": name, "Secret": secret})
        run_helper(helper, "store", request, helper_path)
    else:
        pair = f"{credential.username}:{credential.password}"
        entry["auth"] = base64.b64encode(pair.encode()).decode()
        if credential.identity_token:
            entry["identitytoken"] = credential.identity_token
    auths = _table(document, "auths", file)
    document["auths"] = {**_others(auths, names), (HUB if host in _HUB_NAMES else host): entry}
    write_json(file, document)
    return f"docker-credential-{helper}" if helper else file


def erase_login(file: str, host: str, helper_path: str) -> bool:
    """Forget the credential for ``host``; False if there was none."""
    document = read_json(file)
    names = _HUB_NAMES if host in _HUB_NAMES else (host,)
    helper, server = helper_for(document, names, file)
    known = helper != "" and ask_helper(helper, server, helper_path) is not None
    if known:
        run_helper(helper, "erase", server, helper_path)
    auths = _table(document, "auths", file)
    rest = _others(auths, names)
    if len(rest) == len(auths):
        return known
    write_json(file, {**document, "auths": rest})
    return True


def helper_for(document: dict[str, Any], names: tuple[str, ...], file: str) -> tuple[str, str]:
    """The helper (``secretservice``) that keeps a registry's credential, and the name it knows the registry by."""
    special = _table(document, "credHelpers", file)
    for key, helper in special.items():
        if _plain(key) in names and isinstance(helper, str) and helper:
            return _helper_name(helper, file), key
    default = document.get("credsStore") or ""
    if not isinstance(default, str):
        raise wrong(file, "credsStore must be text")
    return _helper_name(default, file), HUB if "docker.io" in names else names[0]


def ask_helper(helper: str, server: str, helper_path: str) -> Credential | None:
    """Run ``docker-credential-<helper> get``; None if it keeps nothing for ``server``."""
    import json

    answer = run_helper(helper, "get", server, helper_path)
    if answer is None:
        return None
    try:
        fields = json.loads(answer)
        name, secret = fields["Username"], fields["Secret"]
        if not isinstance(name, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _helper_failed(helper, server, "gave an answer that cannot be read") from None
    if not name and not secret:
        return None
    return Credential(identity_token=secret) if name == "<token>" else Credential(name, secret)


def run_helper(helper: str, verb: str, text: str, helper_path: str) -> bytes | None:
    """Run a helper with ``text`` on its standard input; None if it says that it does not know the registry."""
    import shutil
    import subprocess

    server = text if verb != "store" else ""
    program = shutil.which(f"docker-credential-{helper}", path=helper_path)
    if program is None:
        raise _helper_failed(helper, server, "is not installed")
    try:
        done = subprocess.run(
            [program, verb], input=text.encode(), capture_output=True, timeout=HELPER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise _helper_failed(helper, server, f"did not answer within {HELPER_SECONDS} seconds") from None
    except OSError as error:
        raise _helper_failed(helper, server, f"cannot be run: {error.strerror}") from None
    if done.returncode == 0:
        return done.stdout
    if verb != "store" and b"credentials not found" in done.stdout:
        return None
    # What it printed is not shown: some helpers print the secret beside the complaint.
    raise _helper_failed(helper, server, f"failed with status {done.returncode}")


def write_json(path: str, document: dict[str, Any]) -> None:
    """Replace a file as a whole, mode 0600; a symbolic link stays one and its target is replaced."""
    import json
    import tempfile

    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        number, aside = tempfile.mkstemp(prefix=".shiplap-", dir=folder)
        try:
            with os.fdopen(number, "w") as file:
                json.dump(document, file, indent="\t", ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
        except BaseException:
            os.unlink(aside)
            raise
    except OSError as error:
        raise UsageError(
            f"credentials cannot be written: {error.strerror}", code="auth-file", where=Place(path)
        ) from None


def _credential(entry: Any, file: str) -> Credential | None:
    import base64
    import binascii

    if not isinstance(entry, dict):
        raise wrong(file, "an entry of auths is not an object")
    fields = {key: entry.get(key) or "" for key in ("auth", "username", "password", "identitytoken", "registrytoken")}
    if not all(isinstance(value, str) for value in fields.values()):
        raise wrong(file, "an entry of auths holds something else than text")
    name, password = fields["username"], fields["password"]
    if fields["auth"]:
        try:
            pair = base64.b64decode(fields["auth"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise wrong(file, "an auth of auths is not base64 of name:password") from None
        name, colon, password = pair.partition(":")
        if not colon:
            raise wrong(file, "an auth of auths is not base64 of name:password")
        # Docker pads short passwords with zero bytes.
        password = password.strip("\0")
    found = Credential(name, password, fields["identitytoken"], fields["registrytoken"])
    return found if any(found) else None


def _plain(key: str) -> str:
    # docker writes some names as URLs (https://index.docker.io/v1/); the path of those means nothing.
    if "://" in key:
        return key.partition("://")[2].partition("/")[0]
    return key.rstrip("/")


def _others(auths: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in auths.items() if _plain(key) not in names}


def _table(document: dict[str, Any], key: str, file: str) -> dict[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise wrong(file, f"{key} must be an object")
    return value


def _helper_name(helper: str, file: str) -> str:
    # It becomes part of a program's name: nothing that could leave the directories of PATH.
    if helper and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", helper):
        raise wrong(file, "the name of a credential helper is malformed")
    return helper


def _helper_failed(helper: str, server: str, why: str) -> RegistryError:
    about = f" for {server}" if server else ""
    return RegistryError(
        f"credential helper docker-credential-{helper} {why}{about}",
        code="credential-helper",
        hint="install or repair the helper, or take it out of credsStore and credHelpers in config.json",
    )
