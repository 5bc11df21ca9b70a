"""A network of the build's own, inside the helper: a namespace that reaches out through pasta or slirp4netns.

Those are programs without privileges that turn what comes out of a tap device into ordinary connections of the user's. One
namespace serves all steps of a build, which so pays for it once; each step joins it. Steps of one build can then talk to each
other, as they could on the machine's network, but not to what listens on the machine's loopback, nor to its abstract sockets,
nor to link-local addresses, where clouds keep the credentials of a machine.

Three processes hold it: a guard in a mount namespace of its own, the first process of a new pid namespace, which owns the
network, and the program. When the builder closes the socket, or is killed, the guard ends, and the kernel ends the rest.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import fcntl
import os
import select
import struct
import sys
import time

from shiplap.sandbox import linux
from shiplap.sandbox.names import Relay, listen

TYPE_CHECKING = False  # see mounts.py
if TYPE_CHECKING:
    from typing import NoReturn

SEARCH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
PROGRAMS = {
    "pasta": "--quiet --config-net --runas 0 -t none -u none -T none -U none --no-map-gw --no-dhcp --no-dhcpv6 --no-ndp "
    "--no-ra --netns {}",
    "slirp4netns": "--configure --mtu=65520 --disable-host-loopback --netns-type=path {} tap0",
}
"""Best first. No port is forwarded in either direction, and no address stands for the machine's loopback."""
_TUN = "/dev/net/tun"
"""What both need; open to everybody wherever udev has made it."""
_PLACE = "/sys"
"""Covered by a tmpfs that holds a name of the network namespace: by its process, a root without CAP_SYS_PTRACE cannot open
it."""
_SECONDS = 5.0
_UNREACHABLE = ((_socket.AF_INET, "169.254.0.0", 16), (_socket.AF_INET6, "fd00:ec2::254", 128))
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x41
_RTM_NEWROUTE, _RTN_UNREACHABLE, _RT_TABLE_MAIN, _RTPROT_STATIC, _RTA_DST = 24, 7, 254, 4, 1
_REQUEST = 0x1 | 0x4 | 0x100 | 0x400
"""NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_CREATE."""


def loopback_up() -> None:
    """Switch on lo in this network namespace."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, b"lo".ljust(16, b"\0") + _IFF_UP_RUNNING.to_bytes(24, "little"))
    sock.close()


def find(program: str) -> str:
    """The path of ``program``; empty if it is not installed."""
    return next((path for place in SEARCH if os.access(path := f"{place}/{program}", os.X_OK)), "")


def hold(sock: int, user: int = -1) -> NoReturn:
    """Make a network, send its descriptor over ``sock`` with the name of the program, or send why there is none, and keep
    it until the other end is closed. ``user``: the user namespace it shall belong to, or -1: this one. Never returns."""
    try:
        reasons = []
        found = [(name, path) for name in PROGRAMS if (path := find(name))]
        if found:
            try:
                os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
            except OSError as error:
                reasons.append(f"{_TUN}: {(error.strerror or '').lower()}")
                found = []
        for name, path in found:
            reason = _tried(name, path, sock, user)
            if not reason:
                os._exit(0)
            reasons.append(f"{name}: {reason}")
        said = "; ".join(reasons) or "neither pasta nor slirp4netns is installed"
        _socket.socket(fileno=sock).send(said.encode()[:4000])
    except OSError:
        pass
    finally:
        os._exit(0)


def _tried(name: str, path: str, sock: int, user: int) -> str:
    """Empty after the network has been used to the end; else why there is none."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        linux.die_with_parent(_signal.SIGKILL)
        try:
            _guard(name, path, sock, user)
        except BaseException as error:  # noqa: BLE001 - nothing may escape into the helper's code
            os.write(write, (str(error) or type(error).__name__).encode()[:2000])
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        reason = answer.read()
    os.waitpid(pid, 0)
    return reason.decode(errors="replace")


def _guard(name: str, path: str, sock: int, user: int) -> None:
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWPID)
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", _PLACE, "tmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, "mode=700")
    ours, theirs = _socket.socketpair()
    owner = os.fork()
    if owner == 0:
        ours.close()
        _own(theirs, user)
    theirs.close()
    ours.settimeout(_SECONDS)
    _, ancillary, _, _ = ours.recvmsg(1, _socket.CMSG_SPACE(3 * 4), _socket.MSG_CMSG_CLOEXEC)
    if not ancillary:
        raise OSError("no network namespace can be made")
    network, udp, tcp = (int.from_bytes(ancillary[0][2][at : at + 4], sys.byteorder) for at in (0, 4, 8))
    place = f"{_PLACE}/network"
    os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
    linux.mount(f"/proc/self/fd/{network}", place, None, linux.MS_BIND)
    said, pid = _start([path, *PROGRAMS[name].format(place).split()])
    _await(ours, pid, said)
    answer = _socket.socket(fileno=sock)
    rights = network.to_bytes(4, sys.byteorder)
    answer.sendmsg([name.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    Relay(udp, tcp).serve(until=answer)


def _own(sock: _socket.socket, user: int) -> NoReturn:
    """The first process of the pid namespace: makes the network, waits until it leads somewhere, and closes the roads that
    no step shall take."""
    try:
        if user >= 0:
            linux.setns(user, linux.CLONE_NEWUSER)
        linux.die_with_parent(_signal.SIGKILL)  # entering a user namespace clears it
        linux.unshare(linux.CLONE_NEWNET)
        loopback_up()
        network = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        fds = (network, *listen())
        rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        sock.sendmsg([b"n"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        while not _leads_out():
            time.sleep(0.001)
        for family, address, length in _UNREACHABLE:
            try:
                refuse(family, address, length)
            except OSError:
                if family == _socket.AF_INET:
                    raise
        sock.send(b"r")
        while True:
            _signal.pause()
    finally:
        os._exit(1)


def _leads_out() -> bool:
    """Whether this network namespace has a default route."""
    try:
        with open("/proc/thread-self/net/route", "rb") as table:
            if any(line.split()[1] == b"00000000" for line in table.readlines()[1:]):
                return True
        with open("/proc/thread-self/net/ipv6_route", "rb") as table:
            return any(line[:35] == b"0" * 32 + b" 00" and b" lo" not in line[-8:] for line in table)
    except FileNotFoundError:
        return False


def refuse(family: int, address: str, length: int) -> None:
    """Make what lies below ``address``/``length`` unreachable here (rtnetlink(7)). Raises OSError."""
    raw = _socket.inet_pton(family, address)
    route = struct.pack("<BBBBBBBBI", family, length, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, 0, _RTN_UNREACHABLE, 0)
    body = route + struct.pack("<HH", 4 + len(raw), _RTA_DST) + raw
    sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, 0)
    try:
        sock.send(struct.pack("<IHHII", 16 + len(body), _RTM_NEWROUTE, _REQUEST, 1, 0) + body)
        number = -int(struct.unpack_from("<i", sock.recv(4096), 16)[0])
    finally:
        sock.close()
    if number:
        raise OSError(number, os.strerror(number), f"route to {address}")


def _start(words: list[str]) -> tuple[int, int]:
    """Run a program; where to read what it says, and its process id."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)  # pasta 2023 takes it for an error if it is ignored
            null = os.open(os.devnull, os.O_RDWR)
            for fd, number in ((null, 0), (write, 1), (write, 2)):
                os.dup2(fd, number)
            os.closerange(3, 1 << 16)
            os.execve(words[0], words, {"PATH": ":".join(SEARCH)})
        finally:
            os._exit(127)
    os.close(write)
    os.set_blocking(read, False)
    return read, pid


def _await(owner: _socket.socket, pid: int, said: int) -> None:
    """Wait until the network leads somewhere. Raises OSError with the program's last words if it ends before."""
    deadline = time.monotonic() + _SECONDS
    words = b""
    poller = select.poll()
    poller.register(owner, select.POLLIN)
    while not poller.poll(2):
        try:
            words += os.read(said, 4096)
        except BlockingIOError:
            pass
        done, status = os.waitpid(pid, os.WNOHANG) if pid else (0, 0)
        pid = 0 if done else pid  # it may have gone into the background
        if (done and status) or time.monotonic() > deadline:
            lines = [line for line in words.decode(errors="replace").splitlines() if "syslog" not in line]
            raise OSError(lines[-1] if lines else "it does not come up")
    if owner.recv(1) != b"r":
        raise OSError("no routes can be set")
