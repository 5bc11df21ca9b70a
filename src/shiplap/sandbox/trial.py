"""Whether the kernel allows a user namespace, tried in a process of its own: ``helper.py userns``."""

from __future__ import annotations

import os

from shiplap.sandbox import linux


def userns() -> int:
    """0, or the errno with which a user namespace was refused."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        for name, text in (("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
            fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(fd, text.encode())
            os.close(fd)
    except OSError as error:
        return error.errno or 1
    return 0
