"""A web server on loopback for tests: pages by path, and real git repositories."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kit import program


@dataclass
class Page:
    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    login: str = ""
    """The Authorization header that is asked for."""
    conditional: bool = True
    """Whether If-None-Match and If-Modified-Since are understood."""


class Web:
    """An HTTP server on loopback: pages by path, repositories below /git/ by ``git http-backend``; what it was asked."""

    def __init__(self, repositories: Path) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.sent = 0
        self.repositories = repositories
        self.git_login = ""
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                return

            def do_GET(self) -> None:
                web.asked.append((self.command, self.path, dict(self.headers)))
                if self.path.startswith("/git/"):
                    web.git(self)
                else:
                    web.page(self)

            do_POST = do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def page(self, handler: BaseHTTPRequestHandler) -> None:
        page = self.pages.get(handler.path, Page(status=404))
        status, data = page.status, page.data
        headers = dict(page.headers)
        if page.login and handler.headers.get("Authorization") != page.login:
            status, data, headers = 401, b"", {}
        elif page.conditional and status == 200:
            etag, date = headers.get("ETag"), headers.get("Last-Modified")
            if (etag and handler.headers.get("If-None-Match") == etag) or (
                date and not etag and handler.headers.get("If-Modified-Since") == date
            ):
                status, data = 304, b""
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        try:
            handler.wfile.write(data)
        except OSError:
            return
        self.sent += len(data)

    def git(self, handler: BaseHTTPRequestHandler) -> None:
        if self.git_login and handler.headers.get("Authorization") != self.git_login:
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", 'Basic realm="git"')
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        path, _, query = handler.path.removeprefix("/git").partition("?")
        size = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(size)
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": handler.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(size),
            "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run([program("git"), "http-backend"], input=body, env=env, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
        status = next((int(value.split()[0]) for name, value in fields if name == "Status"), 200)
        handler.send_response(status)
        for name, value in fields:
            if name != "Status":
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


class Repository:
    """A git repository that is served."""

    def __init__(self, web: Web, name: str = "repo.git", date: int = 1_700_000_000) -> None:
        self.date = date
        self.path = web.repositories / name
        self.url = f"{web.url}/git/{name}"
        self.git("init", "-q", "-b", "main", str(self.path), cwd=web.repositories)

    def git(self, *args: str, cwd: Path | None = None) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": "/dev/null"}
        for role in ("AUTHOR", "COMMITTER"):
            env |= {
                f"GIT_{role}_NAME": "t",
                f"GIT_{role}_EMAIL": "t@example.com",
                f"GIT_{role}_DATE": f"{self.date} +0000",
            }
        command = [program("git"), "-c", "protocol.file.allow=always", *args]
        return subprocess.run(command, cwd=cwd or self.path, env=env, check=True, capture_output=True, text=True).stdout

    def write(self, name: str, content: str, mode: int = 0o644) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(mode)

    def commit(self, message: str = "a commit") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").strip()
