"""Hard-linked files of other owners: one name is written to, renamed, replaced. Same layers for root and for one id."""

from __future__ import annotations

import io
import json
import tarfile
from difflib import unified_diff
from pathlib import Path

import pytest

from kit import Shiplap

CASES = {
    "untouched": "cat a",
    "written": "echo more >> a",
    "truncated": ": > a",
    "chmod": "chmod 600 a",
    "touched": "touch -d @5 a",
    "renamed": "mv a c",
    "moved": "mv a ../elsewhere",
    "renamed-and-written": "mv a c; echo more >> c",
    "written-and-moved": "echo more >> a; mv a ../elsewhere-too",
    "swapped": "mv a c; mv b a; mv c b",
    "removed": "rm a",
    "made-anew": "rm a; echo new > a",
    "made-anew-of-both": "rm a b; echo new > a; ln a b",
    "replaced": "echo new > c; mv c a",
    "copied-over": "echo new > /tmp/new; cp /tmp/new a; rm /tmp/new",
    "copied-with-owner": "cp -a a c; mv c a",
    "sed": "sed -i s/text/TEXT/ a",
    "linked": "ln a c",
    "linked-and-written": "ln a c; echo more >> c",
    "both-written": "echo more >> a; echo more >> b",
    "given": "chown 12:13 a",
    "given-to-root": "chown 0:0 a",
    "given-a-group": "echo more >> a; chgrp 14 a",
    "opened": "exec 3<>a; mv a c; echo more >&3; exec 3>&-",
    "an-open-one-goes": "exec 3>>a; rm a; echo more >&3; echo new > a; exec 3>&-",
    "swapped-with-a-link": "mv a c; ln -s c a",
    "directory-removed": "cd ..; rm -r directory-removed; mkdir directory-removed; echo new > directory-removed/a",
}
PREPARE = "".join(
    f" && mkdir /{name} && echo text > /{name}/a && chmod 664 /{name}/a && ln /{name}/a /{name}/b && chown 10:11 /{name}/a"
    for name in CASES
)
BASE = f"""FROM busybox
RUN mkdir -p /tmp /more{PREPARE} && mknod /more/n c 1 5 && ln /more/n /more/m && chown 20:21 /more/n \\
 && ln -s nowhere /more/s && chown -h 22:23 /more/s && ln /more/s /more/t
"""
ACTS = "".join(f"RUN cd /{name}; {act}\n" for name, act in CASES.items())
LOOK = "find / -xdev ! -type d | grep -v -E '^/(bin|proc|sys|dev|seen|now)' | sort | xargs stat -c '%n %u:%g %a %h'"
TAIL = f"""RUN echo x >> /more/n; chmod 622 /more/n; mv /more/s /more/r; {LOOK} > /seen
RUN echo later >> /written/b; mv /linked/b /linked/d; echo later >> /renamed/b; {LOOK} >> /seen
RUN for d in /*/b; do echo end >> $d; done; {LOOK} >> /seen
USER 10:11
RUN for d in /both-written/a /written/a /touched/b; do echo mine >> $d; done
"""
AT_ONCE = "RUN :" + "".join(f"; cd /{name}; {act}" for name, act in CASES.items()) + f"; {LOOK} > /now\n"
"""All in one step, in which the owners of what was just written to are looked at as well."""


def build(shiplap: Shiplap, dockerfile: str, *flags: str) -> list[str]:
    """The layers of the image built, a line a member: owner, mode, name, what it links to and what is inside."""
    context = shiplap.cwd / "context"
    context.mkdir(exist_ok=True)
    context.chmod(0o755)
    (context / "Dockerfile").write_text(dockerfile)
    shiplap.run("build", "-q", "--no-cache", "-t", "links", *flags, context)
    (image,) = json.loads(shiplap.run("inspect", "links").stdout)
    found = []
    for number, layer in enumerate(image["Manifest"]["layers"][1:]):
        blob = (shiplap.root / "blobs/sha256" / layer["digest"].partition(":")[2]).read_bytes()
        with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
            for one in archive:
                inside = archive.extractfile(one) if one.isfile() else None
                text = inside.read().decode() if inside is not None else ""
                for line in text.splitlines() or [""]:
                    owner = f"{one.uid}:{one.gid} {one.mode:o} {one.type!r}"
                    found.append(f"layer {number} {owner} {one.name} {one.linkname} {line}")
    return found


def same(expected: list[str], got: list[str]) -> None:
    if expected != got:
        pytest.fail("\n".join(unified_diff(expected, got, "root", "this", lineterm="")), pytrace=False)


@pytest.mark.parametrize("acts", [ACTS, AT_ONCE], ids=["each", "at-once"])
def test_same_layers_over_a_step_with_links(shiplap: Shiplap, rootless: Shiplap, single: Shiplap, acts: str) -> None:
    dockerfile = BASE + acts + TAIL
    expected = build(shiplap, dockerfile)
    same(expected, build(rootless, dockerfile))
    same(expected, build(single, dockerfile))


def test_same_layers_over_an_image_with_links(shiplap: Shiplap, single: Shiplap, tmp_path: Path) -> None:
    """Its layers are unpacked: the record of owners is made by the one who unpacks."""
    build(shiplap, BASE)
    shiplap.run("tag", "links", "base")
    shiplap.run("save", "-o", tmp_path / "base.tar", "base")
    tmp_path.chmod(0o755)
    (tmp_path / "base.tar").chmod(0o644)
    single.run("load", "-i", "-", stdin=(tmp_path / "base.tar").read_bytes())
    dockerfile = "FROM base\n" + AT_ONCE + TAIL
    same(build(shiplap, dockerfile), build(single, dockerfile))


def test_more_links_than_are_followed(shiplap: Shiplap, single: Shiplap) -> None:
    """They keep their owners; where a process may not even have so many open, a step still runs."""
    many = "i=0; while [ $i -lt 350 ]; do echo x > /l/$i; ln /l/$i /l/b$i; i=$((i+1)); done"
    dockerfile = f"FROM busybox\nRUN mkdir /l; {many}; chown -R 5:6 /l\n"
    changes = "RUN echo y >> /l/5; mv /l/b6 /l/c; for i in $(seq 200); do echo $i > /n$i; stat -c %u /n$i; done\n"
    same(build(shiplap, dockerfile + changes), build(single, dockerfile + changes))
    command = ("sh", "-c", 'ulimit -n 500; exec "$@"', "sh", *single.command)
    few = Shiplap(single.root, single.env, single.cwd, command, single.user)
    build(few, dockerfile + "RUN for f in /l/*; do echo y >> $f; done; echo done > /done\n")


def test_files_that_take_long_to_copy_up_are_given_away(single: Shiplap) -> None:
    """Whoever listens to a step's calls wakes up from time to time; what it does for the step is not to end by that."""
    make = "for i in 1 2 3 4 5 6; do dd if=/dev/zero of=/big$i bs=1M count=100 2> /dev/null; done"
    (single.cwd / "Dockerfile").write_text(
        f"FROM busybox\nRUN {make}\nRUN chown 5:6 /big*; stat -c %u:%g /big* > /seen; test $(grep -c ^5:6$ /seen) = 6\n"
    )
    single.run("build", "-q", single.cwd)


def test_same_layers_with_a_runtime(shiplap: Shiplap, single: Shiplap) -> None:
    dockerfile = BASE + AT_ONCE + TAIL
    expected = build(shiplap, dockerfile)
    same(expected, build(single, dockerfile, "--isolation", "oci"))
