"""A program of a few kilobytes that makes system calls with arguments that do no harm and writes down what each returned.

No compiler: the machine code of a call is seven instructions. For x86-64 alone, where the facts were recorded.
"""

from __future__ import annotations

import struct

BAD = (1 << 64) - 1
"""As a pointer EFAULT, as a descriptor EBADF, as a process ESRCH: a call that gets as far as its arguments was let in."""
CALLS: dict[str, tuple[int, ...]] = {
    "ptrace": (101, 16, BAD >> 33, 0, 0),
    "process_vm_readv": (310, BAD >> 33, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, BAD >> 33, 0, 0, 0, 0, 0),
    "process_madvise": (440, BAD, 0, 0, 0, 0),
    "pidfd_getfd": (438, BAD, 0, 0),
    "kcmp": (312, 1, 1, 0, 0, 0),
    "keyctl": (250, 0, BAD - 2, 0),
    "add_key": (248, BAD, BAD, 0, 0, 0),
    "request_key": (249, BAD, BAD, 0, 0),
    "userfaultfd": (323, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, BAD, 0, 0, BAD, 0),
    "io_uring_setup": (425, 0, 0),
    "io_uring_enter": (426, BAD, 0, 0, 0, 0),
    "socket_alg": (41, 38, 5, 0),
    "socket_vsock": (41, 40, 1, 0),
    "socket_netlink": (41, 16, 3, 0),
    "socket_packet": (41, 17, 3, 0),
    "socket_raw": (41, 2, 3, 1),
    "mount": (165, BAD, BAD, BAD, 0, 0),
    "umount2": (166, BAD, 0),
    "pivot_root": (155, BAD, BAD),
    "chroot": (161, BAD),
    "unshare_user": (272, 0x10000000),
    "unshare_mount": (272, 0x20000),
    "unshare_files": (272, 0x400),
    "setns": (308, BAD, 0),
    "clone3": (435, 0, 0),
    "open_by_handle_at": (304, BAD, 0, 0),
    "name_to_handle_at": (303, BAD, BAD, 0, 0, 0),
    "kexec_load": (246, 0, BAD, 0, 0),
    "kexec_file_load": (320, BAD, BAD, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "finit_module": (313, BAD, 0, 0),
    "delete_module": (176, BAD, 0),
    "reboot": (169, 0, 0, 0, 0),
    "acct": (163, BAD),
    "swapon": (167, BAD, 0),
    "swapoff": (168, BAD),
    "settimeofday": (164, BAD, BAD),
    "clock_settime": (227, 0, BAD),
    "adjtimex": (159, BAD),
    "syslog": (103, 10, 0, 0),
    "personality_query": (135, 0xFFFFFFFF),
    "personality_no_randomize": (135, 0x0040000),
    "iopl": (172, 3),
    "ioperm": (173, 0, 1, 1),
    "vhangup": (153,),
    "fanotify_init": (300, 0, 0),
    "fsopen": (430, BAD, 0),
    "fsmount": (432, BAD, 0, 0),
    "open_tree": (428, BAD, BAD, 0),
    "move_mount": (429, BAD, BAD, BAD, BAD, 0),
    "mount_setattr": (442, BAD, BAD, 0, BAD, 32),
    "quotactl": (179, 0, BAD, 0, 0),
    "landlock_create_ruleset": (444, 0, 0, 1),
    "mbind": (237, 1, 0, 0, 0, 0, 0),
    "set_mempolicy": (238, 9999, 0, 0),
    "get_mempolicy": (239, BAD, 0, 0, 0, 9999),
    "move_pages": (279, BAD >> 33, 0, 0, 0, 0, 0),
    "setdomainname": (171, BAD, 1),
    "sethostname": (170, BAD, 1),
    "uselib": (134, BAD),
    "ustat": (136, 0, 0),
    "sysfs": (139, 9),
    "nfsservctl": (180, 0, 0, 0),
    "lookup_dcookie": (212, 0, 0, 0),
    "memfd_create": (319, BAD, 0),
    "setfsuid": (122, BAD),
    "tiocsti": (16, 0, 0x5412, BAD),
    "too_new": (999,),
}
"""Name to number and arguments."""
_ALLOWED_RESULT = 0
_BASE = 0x400000


def program() -> bytes:
    """A static executable that writes 8 bytes, little-endian, for each of CALLS, and exits."""
    buffer = 0x600000
    code = b"\x48\xbb" + struct.pack("<Q", buffer)  # mov rbx, buffer
    registers = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")
    for number, *arguments in CALLS.values():
        for register, value in zip(registers, (*arguments, *(0,) * (6 - len(arguments))), strict=True):
            code += register + struct.pack("<Q", value)  # mov rdi|rsi|rdx|r10|r8|r9, value
        code += b"\x48\xb8" + struct.pack("<Q", number) + b"\x0f\x05"  # mov rax, number; syscall
        code += b"\x48\x89\x03\x48\x83\xc3\x08"  # mov [rbx], rax; add rbx, 8
    code += b"\x48\xbf" + struct.pack("<Q", 1) + b"\x48\xbe" + struct.pack("<Q", buffer)
    code += b"\x48\xba" + struct.pack("<Q", 8 * len(CALLS)) + b"\x48\xb8" + struct.pack("<Q", 1) + b"\x0f\x05"
    code += b"\x31\xff\xb8\x3c\0\0\0\x0f\x05"  # exit(0)
    start = 64 + 2 * 56
    header = struct.pack(
        "<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 2, 62, 1, _BASE + start, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    text = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, start + len(code), start + len(code), 0x1000)
    data = struct.pack("<IIQQQQQQ", 1, 6, 0, buffer, buffer, 0, 8 * len(CALLS), 0x1000)
    return header + text + data + code


def facts(text: str) -> dict[str, str]:
    """What ``od`` printed of the program's output, as facts: ``let in`` or the name of the error that kept it out."""
    found = {}
    for name, word in zip(CALLS, text.split(), strict=True):
        result = int(word)
        found[f"call.{name}"] = {-1: "EPERM", -38: "ENOSYS"}.get(result, "let in")
    return found
