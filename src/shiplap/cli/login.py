"""``shiplap login`` and ``shiplap logout``."""

from __future__ import annotations

import getpass
import sys

from shiplap.cli.parsing import Parser, settings_of, standard_input
from shiplap.errors import UsageError


def run(name: str, argv: list[str]) -> int:
    """Log in to a registry, or forget a login."""
    return _login(argv) if name == "login" else _logout(argv)


def _login(argv: list[str]) -> int:
    p = Parser("login", "Log in to a registry; the login is kept where docker keeps it.")
    p.add_argument("-u", "--username", default="")
    p.add_argument("-p", "--password", default="", help="better: --password-stdin")
    p.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    p.add_argument("host", nargs="?", default="docker.io")
    options = p.parse_args(argv)
    username, password = options.username, options.password
    if options.password_stdin:
        if password:
            raise UsageError(
                "--password and --password-stdin exclude each other", code="no-credentials", hint="leave out --password"
            )
        password = standard_input().readline().decode(errors="surrogateescape").rstrip("\r\n")
    asking = sys.stdin is not None and sys.stdin.isatty()
    if not username and asking:
        username = input("Username: ")
    if not password and asking:
        password = getpass.getpass("Password: ")
    if not username or not password:
        raise UsageError("login needs a name and a password", code="no-credentials", hint="-u NAME --password-stdin")
    from shiplap.api.logins import login

    done = login(options.host, username, password, settings_of(options))
    how = "" if done.helper else ", readable to whoever can read that file"
    print(f"Login Succeeded (kept in {done.place}{how})")
    if done.winner:
        print(f"shiplap: {done.winner} has another login for {done.host}, and is read first", file=sys.stderr)
    return 0


def _logout(argv: list[str]) -> int:
    p = Parser("logout", "Forget the login of a registry.")
    p.add_argument("host", nargs="?", default="docker.io")
    options = p.parse_args(argv)
    from shiplap.api.logins import logout

    done = logout(options.host, settings_of(options))
    print(f"Removed the login for {done.host}" if done.place else f"Not logged in to {done.host}")
    if done.winner:
        print(f"shiplap: {done.winner} still has a login for {done.host}", file=sys.stderr)
    return 0
