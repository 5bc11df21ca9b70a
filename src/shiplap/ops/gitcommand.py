"""Runs git so that no repository, URL or file of the user makes it do more than it was asked.

No configuration but ours (which submodules inherit, for it is a file named by the environment), no hooks, no prompts, no
protocols but those of the network, no environment but what stands here. Credentials are in that file, which only we can
read; they are never on a command line and in no message.
"""

from __future__ import annotations

import os
import shlex
import signal
from base64 import b64encode
from pathlib import Path
from typing import IO

from shiplap.errors import ContextError
from shiplap.ops.workbench import Workbench

PROTOCOLS = "https:http:ssh:git"
"""What git may speak. Not ``file``, and no helper such as ``ext``: those would reach into this machine."""
OUTPUT_LIMIT = 16 << 20
MESSAGE_LIMIT = 2000

_CONFIG = """[core]
\thooksPath = /dev/null
\tfsmonitor = false
\tlogAllRefUpdates = false
[credential]
\thelper =
[protocol "file"]
\tallow = never
[protocol "ext"]
\tallow = never
[gc]
\tauto = 0
[maintenance]
\tauto = false
[fetch]
\trecurseSubmodules = false
[init]
\tdefaultBranch = master
[advice]
\tdetachedHead = false
[http]
\tlowSpeedLimit = 1
\tlowSpeedTime = 60
"""


class GitFailure(ContextError):
    """git ended with an error; the message carries the end of what it said."""

    default_code = "git-failed"


class Git:
    """git, for one remote. ``remote`` is what it is given, ``shown`` what may be told; neither holds a credential."""

    def __init__(self, url: str, bench: Workbench, scratch: Path) -> None:
        from shiplap.ops.http import take_credentials

        self.remote, basic = take_credentials(url) if url.startswith(("http://", "https://")) else (url, "")
        self.shown = self.remote.partition("?")[0]
        self._bench = bench
        self._scratch = scratch
        self._secrets: list[str] = []
        self._program = _find("git", bench.programs)
        self._config = scratch / "config"
        self._config.touch(0o600)
        self._config.write_text(_CONFIG + self._credentials(basic))
        self._env = self._environment()

    def run(
        self, *args: str, git_dir: Path | None = None, work_tree: Path | None = None, protocols: str = PROTOCOLS
    ) -> bytes:
        """What git printed. Raises GitFailure; Interrupted if the build is cancelled, when git has been stopped."""
        import subprocess

        command = [self._program]
        if git_dir is not None:
            command.append(f"--git-dir={git_dir}")
        if work_tree is not None:
            command.append(f"--work-tree={work_tree}")
        with open(self._scratch / "output", "w+b") as output, open(self._scratch / "errors", "w+b") as errors:
            process = subprocess.Popen(
                [*command, *args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**self._env, "GIT_ALLOW_PROTOCOL": protocols},
                cwd=work_tree or self._scratch,
                start_new_session=True,
                umask=0o022,
            )
            try:
                status = self._wait(process)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
            if status != 0:
                raise self._failure(args[0], _end_of(errors), status)
            output.seek(0)
            return output.read(OUTPUT_LIMIT)

    def _wait(self, process: object) -> int:
        import subprocess

        assert isinstance(process, subprocess.Popen)
        while True:
            try:
                return int(process.wait(0.2))
            except subprocess.TimeoutExpired:
                self._bench.check()

    def _failure(self, what: str, said: str, status: int) -> GitFailure:
        from shiplap.registry.failure import Redactor

        redactor = Redactor()
        redactor.hide(*self._secrets)
        said = redactor.clean(said, MESSAGE_LIMIT) or f"exit status {status}"
        hint = "check the address and the network"
        if any(
            text in said for text in ("could not read Username", "Authentication failed", "error: 401", "error: 403")
        ):
            hint = "it may be private or not exist; give a token with --secret id=GIT_AUTH_TOKEN,env=NAME"
        elif "Permission denied (publickey" in said:
            hint = "the agent has no key that the server knows: see ssh-add -l"
        elif "transport 'file' not allowed" in said:
            hint = "submodules must be fetched over the network; leave them out with ?submodules=false"
        return GitFailure(f"git {what} of {self.shown} failed: {said}", hint=hint)

    # -- what git is told

    def _credentials(self, basic: str) -> str:
        """The configuration that lets git prove who we are to this remote, and to no other host."""
        if not self.remote.startswith(("http://", "https://")):
            return ""
        header = self._secret_header() or basic
        if not header:
            return ""
        self._secrets.append(header.rpartition(" ")[2])
        scheme, _, rest = self.remote.partition("://")
        host = rest.partition("/")[0]
        # A token is for the one repository; on github.com it is shared with submodules, as BuildKit does.
        scope = f"{scheme}://{host}/" if host == "github.com" else self.remote
        return f'[http "{_quoted(scope)}"]\n\textraHeader = "Authorization: {_quoted(header)}"\n'

    def _secret_header(self) -> str:
        from shiplap.ops.http import header_value

        host = self.remote.partition("://")[2].partition("/")[0]
        for name in (f"GIT_AUTH_HEADER.{host}", f"GIT_AUTH_TOKEN.{host}", "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"):
            read = self._bench.secrets.get(name)
            if read is None:
                continue
            value = header_value(read(), name)
            self._secrets.append(value)
            if "TOKEN" in name:
                return "basic " + b64encode(f"x-access-token:{value}".encode("latin-1")).decode()
            return value
        return ""

    def _environment(self) -> dict[str, str]:
        env = {
            "PATH": self._bench.programs,
            "LC_ALL": "C",
            "HOME": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self._config),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            # Where no repository is named, none is looked for above: it would bring its configuration with it.
            "GIT_CEILING_DIRECTORIES": str(self._scratch.parent),
        }
        proxies = self._bench.web().proxies
        named = {
            "http_proxy": proxies.http,
            "https_proxy": proxies.https,
            "all_proxy": proxies.all,
            "no_proxy": proxies.none_for,
        }
        env.update((name, value) for name, value in named.items() if value)
        if self.remote.startswith("ssh://") or "://" not in self.remote:
            socket = self._bench.ssh.get("default")
            if socket is None:
                raise ContextError(
                    'no SSH key "default" forwarded from the client',
                    code="ssh-not-forwarded",
                    hint="give an agent with --ssh default",
                )
            env["SSH_AUTH_SOCK"] = socket
            env["GIT_SSH_COMMAND"] = self._ssh_command()
        else:
            env["GIT_SSH_COMMAND"] = "false"
        return env

    def _ssh_command(self) -> str:
        """ssh that uses the agent and nothing else. A host seen for the first time is remembered, a changed one refused."""
        known = self._bench.store.root / "git" / "known_hosts"
        known.parent.mkdir(mode=0o700, exist_ok=True)
        options = [
            "BatchMode=yes",
            "ConnectTimeout=15",
            "IdentityFile=none",
            "StrictHostKeyChecking=accept-new",
            f'UserKnownHostsFile="{known}" ~/.ssh/known_hosts',
        ]
        return " ".join(["ssh", "-F", "/dev/null", *(f"-o {shlex.quote(option)}" for option in options)])


def _find(name: str, path: str) -> str:
    import shutil

    found = shutil.which(name, path=path)
    if found is None:
        raise ContextError(f"{name} is not installed", code="git-missing", hint="install git 2.30 or newer")
    return found


def _end_of(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - MESSAGE_LIMIT, 0))
    return file.read().decode("utf-8", "replace")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
