"""The default network of RUN leads out through pasta or slirp4netns, and never to the machine's own services."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import REPOSITORY, Shiplap, program, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may have no /dev/net/tun")


@pytest.fixture
def service() -> Iterator[int]:
    """The port of something that listens on the machine's loopback and greets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            while True:
                client, _ = server.accept()
                with client:
                    if client.recv(10) == b"end\n":
                        return
                    client.sendall(b"hello\n")

        thread = threading.Thread(target=greet)
        thread.start()
        yield server.getsockname()[1]
        with socket.create_connection(server.getsockname()) as last:
            last.sendall(b"end\n")
        thread.join()


def test_loopback_services_need_network_host(shiplap: Shiplap, service: int) -> None:
    program("pasta")
    text = f"FROM busybox\nRUN echo x | nc -w 2 127.0.0.1 {service} > /got; ls /sys/class/net; cat /got\n"
    for flags, expected in (((), False), (("--network", "none"), False), (("--network", "host"), True)):
        done = shiplap.run("build", "--no-cache", "--progress", "plain", *flags, "-", stdin=text.encode())
        assert ("hello" in done.stderr) == expected, flags
        assert "shares this machine's network" not in done.stderr
    allowed = text.replace("RUN", "RUN --network=host").encode()
    flags = ("--no-cache", "--progress", "plain", "--allow", "network.host")
    assert "hello" in shiplap.run("build", *flags, "-", stdin=allowed).stderr


def test_names_through_a_resolver_on_loopback(shiplap: Shiplap, tmp_path: Path) -> None:
    """What systemd-resolved does: resolv.conf names 127.0.0.53, where a step cannot ask."""
    program("pasta")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "server.py").write_text(SERVER)
    build = [*shiplap.command, "build", "--no-cache", "--progress", "plain", "-"]
    script = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
    server = subprocess.Popen([sys.executable, str(tmp_path / "server.py")], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path / "resolv.conf"), *build],
            input=b"FROM busybox\nRUN cat /etc/resolv.conf; nslookup -type=a shiplap.test\n",
            capture_output=True,
            **shiplap.setting(),
        )
    finally:
        server.terminate()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()
    text = done.stderr.decode()
    assert done.returncode == 0, text
    assert "nameserver 127.0.0.11" in text and "192.0.2.77" in text


SERVER = """
import socket
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("127.0.0.53", 53))
print("ready", flush=True)
while True:
    query, peer = server.recvfrom(4096)
    end = query.index(0, 12) + 5
    answer = query[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + query[12:end]
    server.sendto(answer + b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + bytes((192, 0, 2, 77)), peer)
"""


def test_without_the_programs_it_is_the_machines_and_says_so(shiplap: Shiplap, service: int) -> None:
    """Once a build, however many steps."""
    text = f"FROM busybox\nRUN echo x | nc -w 2 127.0.0.1 {service}\nRUN true\nRUN --network=none true\n"
    build = [*shiplap.command, "build", "--no-cache", "--progress", "plain", "-"]
    cover = "[ -e /usr/bin/$p ] && mount --bind /etc/passwd $(readlink -f /usr/bin/$p)"
    hide = f'for p in pasta slirp4netns; do {cover}; done; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", hide, "sh", *build], input=text.encode(), capture_output=True, **shiplap.setting()
    )
    said = done.stderr.decode()
    assert done.returncode == 0 and "hello" in said
    assert said.count("shares this machine's network") == 1
    assert "neither pasta nor slirp4netns is installed" in said, said


BUILDER = """
import sys, threading
from pathlib import Path
from shiplap.sandbox.native import NativeRuntime
runtime = NativeRuntime()
assert runtime.outlet()[0], runtime.outlet()
print("ready", flush=True)
threading.Event().wait()
"""


def _tree(pid: int) -> list[int]:
    """Processes below ``pid``."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [int(directory.name), *_tree(int(directory.name))]
    return found


def test_killed_builder_leaves_no_network() -> None:
    program("pasta")
    environment = {"PYTHONPATH": str(REPOSITORY / "src"), "PATH": "/usr/bin:/bin"}
    builder = subprocess.Popen([sys.executable, "-c", BUILDER], env=environment, stdout=subprocess.PIPE)
    assert builder.stdout is not None and builder.stdout.readline() == b"ready\n"
    below = _tree(builder.pid)
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in below]
    assert any(name.startswith(("pasta", "passt", "slirp")) for name in names), names
    builder.kill()
    builder.wait()
    builder.stdout.close()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "the end of the network", 5)
