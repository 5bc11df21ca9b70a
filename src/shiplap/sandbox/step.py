"""The process of a step, inside the helper, from the fork to its exec."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import fcntl
import os
import resource
import sys

from shiplap.sandbox import linux, mounts, profile
from shiplap.sandbox.messages import write_message
from shiplap.sandbox.refused import NotExecutable, Refused
from shiplap.sandbox.rooted import Place

TYPE_CHECKING = False  # see mounts.py
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    Request = Mapping[str, Any]

_LIMITS = (
    *("cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as"),
    *("locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"),
)
"""Names of docker's ulimits; the index is the number (asm-generic/resource.h)."""
_REPORT = 3
"""Descriptor on which the process tells its keeper what it made, and why it failed; exec closes it."""
_HEARD = 4
"""Descriptor on which it hands the keeper the listener of its calls, if there is to be one; exec closes it."""
_EMULATION = 5
"""Descriptor of the user namespace in which a step's emulator is known; exec closes it."""
SCRATCH = "scratch"


class Facts:
    """What the helper found out once: ``userns`` not the machine's first user namespace, ``filter`` the BPF program."""

    __slots__ = ("emulated", "filter", "gid_5", "heard", "machine", "nofile", "setgroups", "single", "userns")

    def __init__(self, machine: str, bpf: bytes) -> None:
        self.machine = machine
        self.filter = bpf
        self.heard = b""
        """The program of the calls that the keeper answers; empty: none."""
        self.emulated = b""
        """The same, of steps that are emulated: they are in a user namespace also where others are not."""
        with open("/proc/self/uid_map", "rb") as table:
            spans = [[int(word) for word in line.split()] for line in table]
        self.userns = spans != [[0, 0, 0xFFFFFFFF]]
        self.single = all(count == 1 for _, _, count in spans)
        """Only root exists here."""
        with open("/proc/self/gid_map", "rb") as table:
            spans = [[int(word) for word in line.split()] for line in table]
        self.gid_5 = any(inside <= 5 < inside + count for inside, _, count in spans)
        try:
            with open("/proc/self/setgroups", "rb") as answer:
                self.setgroups = answer.read().strip() == b"allow"
        except FileNotFoundError:
            self.setgroups = True
        self.nofile = resource.getrlimit(resource.RLIMIT_NOFILE)

    def expect_emulation(self) -> None:
        """Load what keepers of emulated steps need, once rather than in each of them."""
        if not self.emulated:
            from shiplap.sandbox import binfmt, seccomp, supervisor  # noqa: F401

            listens = seccomp.listens(self.machine) and not self.heard
            self.emulated = seccomp.listening_filter(self.machine, False) if listens else self.heard


def explain(error: BaseException) -> tuple[str, str, str]:
    """Code, message and hint of what stopped a step."""
    if isinstance(error, Refused):
        return error.code, error.message, error.hint
    if isinstance(error, OSError) and error.strerror:
        what = error.filename if isinstance(error.filename, str) else ""
        return "sandbox", f"{what}: {error.strerror}".lstrip(": "), ""
    return "sandbox", f"{type(error).__name__}: {error}", ""


def scratch(request: Request) -> str:
    """Where the step's mount namespace has a tmpfs for what is bound into the root, beside overlay's own directories."""
    return os.path.join(request["work"], SCRATCH)


def spare(request: Request, index: int, name: str = "") -> str:
    """Directory for the changes to the throw-away view that is mount number ``index``, beside overlay's own."""
    return os.path.join(request["work"], f"view-{index}", name)


def first_process(
    request: Request,
    facts: Facts,
    stdout: int,
    stderr: int,
    report: int,
    heard: int,
    network: int,
    emulation: int,
) -> NoReturn:
    """The forked child: becomes the step's process, or reports why not. ``heard``: -1, or a socket for the listener;
    ``network``: -1, or the namespace to join; ``emulation``: -1, or the user namespace to exec in."""
    try:
        # Above everything that dup2 will overwrite.
        stdout, stderr, report = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in (stdout, stderr, report))
        wanted = ((_HEARD, heard), (_EMULATION, emulation))
        kept = [(number, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16)) for number, fd in wanted if fd >= 0]
        os.dup2(report, _REPORT, inheritable=False)
        for number, fd in kept:
            os.dup2(fd, number, inheritable=False)
        linux.die_with_parent(_signal.SIGKILL)
        os.setsid()
        if network >= 0:
            linux.setns(network, linux.CLONE_NEWNET)
        if request["runtime"] is None:
            _enter_root(request, facts, alone=request["network"] == "none" and network < 0)
            _take_stdio(stdout, stderr, (request["uid"], request["gid"]), [number for number, _ in kept])
            _become(request, facts, heard >= 0, emulation >= 0)
        else:
            _hand_over(request, facts, stdout, stderr, [number for number, _ in kept])
    except NotExecutable as error:
        os.write(2, f"{error}\n".encode())
        os._exit(1)
    except BaseException as error:  # noqa: BLE001 - nothing may escape into the keeper's code
        write_message(_REPORT, ("error", *explain(error)))
    finally:
        os._exit(1)


def _enter_root(request: Request, facts: Facts, alone: bool) -> None:
    """``alone``: a network is to be made, with nothing but loopback."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | (linux.CLONE_NEWNET if alone else 0))
    try:
        linux.unshare(linux.CLONE_NEWCGROUP)
    except OSError:
        pass  # only hides the name of the builder's own cgroup
    if alone:
        from shiplap.sandbox.network import loopback_up

        loopback_up()
    root = mounts.open_directory(request["upper"])
    inside = mounts.Inside(root, scratch(request), facts.userns, request["insecure"])
    inside.kernel(request["network"] != "host", request["shm_size"], facts.gid_5)
    _step_mounts(inside, request)
    mounts.enter(root)
    linux.set_hostname(request["hostname"])
    try:
        os.chdir(request["cwd"])
    except FileNotFoundError:  # hidden by a mount
        os.makedirs(request["cwd"], 0o755, exist_ok=True)
        os.chdir(request["cwd"])


def _step_mounts(inside: mounts.Inside, request: Request) -> None:
    root = (0, 0)
    places = [
        inside.file("/etc/resolv.conf", request["resolv"], 0o644, root),
        inside.file("/etc/hosts", request["hosts"], 0o644, root),
    ]
    _tell(places)
    for index, mount in enumerate(request["mounts"]):
        target = mount["target"]
        kind = mount["kind"]
        inside.staging(mount["staged"])
        if kind == "bind":
            place = inside.tree(target, mount["source"], mount["subpath"], mount["readonly"])
        elif kind == "overlay":
            where = spare(request, index)
            place = inside.view(target, mount["lowers"], where, mount["subpath"], mount["readonly"])
        elif kind == "tmpfs":
            place = inside.tmpfs(target, mount["size"])
        else:
            place = inside.file(target, mount["data"], mount["mode"], (mount["uid"], mount["gid"]))
        if mount["staged"]:
            place.made.clear()  # in the scratch directory, which vanishes as a whole
        _tell([place])
    for file in inside.owned:
        write_message(_REPORT, ("owned", *file))


def _tell(places: list[Place]) -> None:
    for place in places:
        for made in place.made:
            write_message(_REPORT, ("made", *made.record()))
        place.close()


def _take_stdio(stdout: int, stderr: int, owner: tuple[int, int], kept: list[int]) -> None:
    """Descriptors 0 to 2 of the step, and nothing else but the report and those ``kept``, which close at exec."""
    null = os.open("/dev/null", os.O_RDONLY)
    for fd, number in ((null, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, number)
    for number in (1, 2):
        try:
            os.fchown(number, *owner)  # so that a USER may open /dev/stdout
        except OSError:
            pass
    for number in (_HEARD, _EMULATION):
        if number not in kept:
            os.closerange(number, number + 1)
    os.closerange(_EMULATION + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for number in range(1, 65):
        try:
            _signal.signal(number, _signal.SIG_DFL)  # Python ignores SIGPIPE, and exec keeps what is ignored
        except (OSError, ValueError):
            pass
    linux.default_internal_signals(os.uname().machine)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    os.umask(0o022)


def _be_heard(facts: Facts) -> None:
    """Let the keeper answer the calls of ``facts.heard``: of this process, which must not end before it has been heard,
    and of all that come from it."""
    listener = linux.install_listener(facts.heard, facts.machine)
    sock = _socket.socket(fileno=_HEARD)
    sock.sendmsg([b"l"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, sys.byteorder))])
    os.close(listener)
    sock.close()


def _become(request: Request, facts: Facts, heard: bool, emulated: bool) -> NoReturn:
    """Take the identity, give up the powers, and exec. The filter goes in while CAP_SYS_ADMIN is still there, since
    no_new_privs stays off as in BuildKit: sudo and su work in a step."""
    _limits(request["ulimits"], facts)
    try:
        linux.join_new_keyring(facts.machine)
    except OSError:
        pass  # no keyrings here, or the quota of the user is full: nothing is shared that was not before
    insecure = request["insecure"]
    if emulated:
        from shiplap.sandbox import binfmt

        binfmt.enter(_EMULATION, mounts=insecure)
    everything = linux.capabilities()[1]
    granted = everything if insecure else profile.CAPABILITY_MASK & everything
    if not insecure:
        linux.limit_bounding(profile.CAPABILITY_MASK)
    if heard:
        _be_heard(facts)
    if not insecure:
        linux.install_seccomp(facts.filter, facts.machine)
    if facts.setgroups or (heard and facts.single):
        os.setgroups(request["groups"])
    uid, gid = request["uid"], request["gid"]
    linux.keep_capabilities(True)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    linux.keep_capabilities(False)
    if insecure:
        linux.set_capabilities(granted, granted, granted)
        linux.raise_ambient(granted)
    else:
        linux.set_capabilities(granted if uid == 0 else 0, granted, 0)
    linux.die_with_parent(_signal.SIGKILL)  # a change of identity clears it
    environment = dict(word.partition("=")[::2] for word in request["env"])
    program = find_program(request["args"][0], environment.get("PATH", ""))
    try:
        os.execve(program, request["args"], environment)
    except OSError as error:
        raise NotExecutable(f"exec {program}: {(error.strerror or '').lower()}") from error


def _limits(wanted: Mapping[str, tuple[int, int]], facts: Facts) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, facts.nofile)
    for name, (soft, hard) in wanted.items():
        if name not in _LIMITS:
            raise Refused("ulimit", f"unknown ulimit {name!r}", f"one of {', '.join(sorted(_LIMITS))}")
        try:
            resource.setrlimit(_LIMITS.index(name), (soft, hard))
        except (OSError, ValueError) as error:
            hint = "only root may raise a hard limit: lower it, or raise the one shiplap runs under"
            raise Refused("ulimit", f"cannot set ulimit {name}={soft}:{hard}: {error}", hint) from error


def find_program(name: str, path: str) -> str:
    """What ``name`` stands for: itself if it has a slash, else the first executable in ``path``.

    Raises NotExecutable with the words of runc, which are the words BuildKit shows.
    """
    if "/" in name:
        try:
            os.stat(name)
        except OSError as error:
            raise NotExecutable(f'exec: "{name}": stat {name}: {(error.strerror or "").lower()}') from error
        if not _executable(name):
            raise NotExecutable(f'exec: "{name}": permission denied')
        return name
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", name)
        if name and _executable(candidate):
            return candidate
    raise NotExecutable(f'exec: "{name}": executable file not found in $PATH')


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK, effective_ids=True)


def _hand_over(request: Request, facts: Facts, stdout: int, stderr: int, kept: list[int]) -> NoReturn:
    """Call an OCI runtime over a root that has the step's mounts in it already (runtimes bind it recursively).

    It is told to detach: then the process inherits the step's own pipes (in the foreground runc copies through pipes of
    its own, and waits for ever if something else holds them) and, once the runtime has gone, is a child of this one.

    Where the step is emulated it is called inside the user namespace that knows the emulator, as a user without privileges
    would call it in theirs. What it finds mounted there it cannot take apart, and need not.
    """
    runtime = request["runtime"]
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("proc", "/proc", "proc", mounts.INERT)  # of this pid namespace: the runtime looks up its children there
    if runtime["hide"]:
        linux.mount("tmpfs", runtime["hide"], "tmpfs", linux.MS_RDONLY)
    root = mounts.open_directory(request["upper"])
    inside = mounts.Inside(root, scratch(request), facts.userns, request["insecure"], covered=("dev", "sys"))
    _step_mounts(inside, request)
    os.chdir(runtime["bundle"])
    _take_stdio(stdout, stderr, (request["uid"], request["gid"]), kept)
    resource.setrlimit(resource.RLIMIT_NOFILE, facts.nofile)
    if _EMULATION in kept:
        from shiplap.sandbox import binfmt

        binfmt.enter(_EMULATION, mounts=True)
        os.close(_EMULATION)
    if _HEARD in kept:
        _be_heard(facts)
    status = _call(runtime["run"])
    if status == 0:
        with open(runtime["pid_file"], "rb") as answer:
            wanted = int(answer.read())
        pid = 0
        while pid != wanted:
            pid, ended = os.wait()
        status = os.waitstatus_to_exitcode(ended)
    os._exit(128 - status if status < 0 else status)


def _call(words: list[str]) -> int:
    """Exit code of a program, run with this process's descriptors. Negative if a signal ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(words[0], words, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        finally:
            os._exit(127)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
