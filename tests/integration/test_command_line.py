"""The command line as people and scripts use it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from kit import Shiplap


def context_of(path: Path, dockerfile: str, **files: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "Dockerfile").write_text(dockerfile)
    for name, content in files.items():
        (path / name).write_text(content)
    return path


def leftovers(shiplap: Shiplap) -> list[str]:
    return os.listdir(shiplap.root / "tmp")


def test_buildx_build_is_build(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(tmp_path / "c", "FROM busybox\nRUN echo hi > /x\n")
    one = shiplap.run("build", "-q", context).stdout
    assert shiplap.run("buildx", "build", "-q", "--load", "--provenance=false", context).stdout == one


def test_a_dockerfile_on_standard_input(shiplap: Shiplap) -> None:
    shiplap.run("build", "-t", "it", "-", stdin=b"FROM busybox\nCMD echo from stdin\n")
    assert shiplap.run("run", "it").stdout == "from stdin\n"


def test_a_context_on_standard_input(shiplap: Shiplap) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in (("sub/Dockerfile", b"FROM busybox\nCOPY f /f\nCMD cat /f\n"), ("f", b"content\n")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    shiplap.run("build", "-t", "it", "-f", "sub/Dockerfile", "-", stdin=out.getvalue())
    assert shiplap.run("run", "it").stdout == "content\n"


def test_file_dash_reads_the_dockerfile_from_standard_input(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(tmp_path / "c", "FROM nothing-here\n", f="data")
    shiplap.run("build", "-t", "it", "-f", "-", context, stdin=b"FROM busybox\nCOPY f /f\nCMD cat /f\n")
    assert shiplap.run("run", "it").stdout == "data"


def test_a_dockerfile_that_can_be_read_once(shiplap: Shiplap, tmp_path: Path) -> None:
    """As ``-f <(generate)``: a pipe, of which nobody may take a look before it is read."""
    context = context_of(tmp_path / "c", "FROM nothing-here\n", f="data")
    dockerfile = b"FROM busybox\nCOPY f /f\nRUN echo more >> /f\nCMD cat /f\n"
    shiplap.run("build", "-t", "it", "-f", "/dev/stdin", context, stdin=dockerfile)
    assert shiplap.run("run", "it").stdout == "datamore\n"


def test_attestations_are_looked_at_also_where_nothing_is_delivered(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(tmp_path / "c", "FROM busybox\nRUN exit 3\n")  # which does not come to run
    flags = ("-o", "type=cacheonly", "--metadata-file", tmp_path / "m", "--attest", "type=nonsense")
    done = shiplap.run("build", *flags, context, check=False)
    assert done.returncode == 2 and "[invalid-attestation]" in done.stderr


def test_flags(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(
        tmp_path / "c",
        "FROM busybox\nARG A=1 B\nRUN --mount=type=secret,id=s,env=S --mount=type=secret,id=f "
        'echo "$A $B $S $(cat /run/secrets/f) $(hostname)" > /out; grep extra /etc/hosts >> /out; df -k /dev/shm >> /out\n',
    )
    (tmp_path / "secret").write_text("from file")
    shiplap.run(
        "build", "-t", "it", "--build-arg", "A=2", "--build-arg", "B", "--secret", "id=s,env=TOKEN",
        "--secret", f"id=f,src={tmp_path}/secret", "--label", "l=v", "--add-host", "extra:1.2.3.4", "--shm-size", "1m",
        "--iidfile", tmp_path / "iid", "--metadata-file", tmp_path / "meta.json", context, B="env", TOKEN="from env",
    )  # fmt: skip
    out = shiplap.run("run", "it", "cat", "/out").stdout
    assert out.startswith("2 env from env from file buildkitsandbox\n1.2.3.4\textra\n")
    assert "1024" in out
    inspected = json.loads(shiplap.run("inspect", "it").stdout)[0]
    assert inspected["Image"]["config"]["Labels"] == {"l": "v"}
    assert (tmp_path / "iid").read_text() == inspected["Manifest"]["config"]["digest"]
    metadata = json.loads((tmp_path / "meta.json").read_text())
    assert metadata["containerimage.digest"] == inspected["Digest"]
    assert metadata["image.name"] == "docker.io/library/it:latest"


def test_secrets_leave_no_trace(shiplap: Shiplap, tmp_path: Path) -> None:
    canary = "s3cr3t-canary-77"
    context = context_of(tmp_path / "c", "FROM busybox\nRUN --mount=type=secret,id=s,env=S true && echo done\n")
    text = shiplap.run("build", "--progress=rawjson", "--secret", "id=s,env=TOKEN", context, TOKEN=canary)
    assert canary not in text.stdout + text.stderr
    for path in shiplap.root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert canary.encode() not in path.read_bytes(), path


def test_outputs(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(tmp_path / "c", "FROM scratch\nCOPY f /d/f\n", f="data")
    shiplap.run(
        "build",
        "-o",
        tmp_path / "out",
        "-o",
        f"type=tar,dest={tmp_path}/t.tar",
        "-o",
        f"type=oci,dest={tmp_path}/o.tar",
        context,
    )
    assert (tmp_path / "out/d/f").read_text() == "data"
    with tarfile.open(tmp_path / "t.tar") as archive:
        assert archive.getnames() == ["d", "d/f"]
    with tarfile.open(tmp_path / "o.tar") as archive:
        assert {"oci-layout", "index.json", "blobs/sha256"} <= set(archive.getnames())
    piped = shiplap.run("build", "-q", "-o", "-", context).stdout
    assert piped.startswith("d/")


def test_images_tag_rmi_prune_du(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(tmp_path / "c", "FROM busybox\nRUN echo hi > /x\n")
    id = shiplap.run("build", "-q", "-t", "a", context).stdout.strip()
    (inspected,) = json.loads(shiplap.run("inspect", id).stdout)
    assert inspected["Manifest"]["config"]["digest"] == id
    digest = inspected["Digest"]
    shiplap.run("tag", "a", "b:2")
    listed = [json.loads(line) for line in shiplap.run("images", "--format", "json").stdout.splitlines()]
    assert {(row["name"], row["digest"]) for row in listed} >= {("a:latest", digest), ("b:2", digest)}
    assert shiplap.run("rmi", "a").stdout == "Untagged: docker.io/library/a:latest\n"
    assert "freed" in shiplap.run("prune").stdout
    assert shiplap.run("run", "b:2", "cat", "/x").stdout == "hi\n"
    assert "snapshots" in shiplap.run("du").stdout
    history = [json.loads(line) for line in shiplap.run("history", "--format", "json", "b:2").stdout.splitlines()]
    assert history[0]["created_by"] == "RUN /bin/sh -c echo hi > /x # buildkit"
    assert "[bad-command-line]" in shiplap.run("rmi", "--all", "b:2", check=False).stderr
    assert "[bad-command-line]" in shiplap.run("rmi", check=False).stderr
    assert shiplap.run("rmi", "--all").stdout.splitlines() == [
        "Untagged: docker.io/library/b:2",
        "Untagged: docker.io/library/busybox:latest",
    ]
    shiplap.run("prune", "--all")
    assert shiplap.run("images").stdout.count("\n") == 1
    assert list((shiplap.root / "blobs/sha256").iterdir()) == []
    assert list((shiplap.root / "snapshots").iterdir()) == []


def test_save_and_load(shiplap: Shiplap, tmp_path: Path) -> None:
    shiplap.run("build", "-q", "-t", "a:1", "-", stdin=b"FROM busybox\nCMD echo loaded\n")
    for kind in ("docker", "oci"):
        shiplap.run("save", "--format", kind, "-o", tmp_path / f"{kind}.tar", "a:1")
        other = Shiplap(tmp_path / f"store-{kind}", {}, tmp_path)
        assert other.run("load", "-i", tmp_path / f"{kind}.tar").stdout == "Loaded image: docker.io/library/a:1\n"
        assert other.run("run", "a:1").stdout == "loaded\n"


def test_run_passes_status_output_and_variables(shiplap: Shiplap) -> None:
    shiplap.run("pull", "-q", "busybox")
    done = shiplap.run(
        "run",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "33",
        "busybox",
        "sh",
        "-c",
        "echo $A; pwd; id -u; echo err >&2; exit 7",
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "b\n/tmp\n33\n", "err\n")


def test_run_uses_the_files_of_the_build(shiplap: Shiplap, tmp_path: Path) -> None:
    """What was built here is not unpacked again from the layers that were packed from it."""
    shiplap.run("build", "-q", "-t", "it", context_of(tmp_path / "c", "FROM busybox\nRUN echo hi > /x\n"))
    before = sorted(os.listdir(shiplap.root / "snapshots"))
    assert shiplap.run("run", "it", "cat", "/x").stdout == "hi\n"
    assert sorted(os.listdir(shiplap.root / "snapshots")) == before


def test_a_copy_that_nobody_reads_is_never_files(shiplap: Shiplap, tmp_path: Path) -> None:
    """Its layer is packed straight from the context; the files are made when somebody asks for them."""
    context = context_of(tmp_path / "c", "FROM scratch\nCOPY f /d/f\nCOPY --chmod=600 f /d/g\n", f="data")
    shiplap.run("build", "-q", "-t", "it", context)
    snapshots = list((shiplap.root / "snapshots").iterdir())
    assert len(snapshots) == 2 and not any((path / "diff").exists() for path in snapshots)
    assert ": 0 steps run, 2 reused" in shiplap.run("build", "-o", tmp_path / "out", context).stderr
    assert [(p.name, p.read_text(), p.stat().st_mode & 0o777) for p in sorted((tmp_path / "out/d").iterdir())] == [
        ("f", "data", 0o644),
        ("g", "data", 0o600),
    ]


def test_rawjson_is_one_fact_a_line(shiplap: Shiplap) -> None:
    text = shiplap.run("build", "--progress=rawjson", "-", stdin=b"FROM busybox\nRUN echo hello\n").stderr
    facts = [json.loads(line) for line in text.splitlines()]
    kinds = {fact["type"] for fact in facts}
    assert {"step-started", "step-output", "step-finished", "build-finished"} <= kinds
    assert any("RUN echo hello" in fact.get("name", "") for fact in facts)


@pytest.mark.parametrize("style", ["text", "mermaid", "dot", "svg"])
def test_graph_needs_no_registry(shiplap: Shiplap, tmp_path: Path, style: str) -> None:
    context = context_of(tmp_path / "c", "FROM a AS x\nRUN one\nFROM b\nRUN two\nFROM c\nCOPY --from=x /f /f\n")
    text = shiplap.run("graph", "--format", style, context, CONTAINERS_REGISTRIES_CONF="/dev/null").stdout
    assert "RUN one" in text and "RUN two" not in text and "stage-1" in text
    if style == "svg":
        import xml.etree.ElementTree

        xml.etree.ElementTree.fromstring(text)


# -- what goes wrong


@pytest.mark.parametrize(
    ("dockerfile", "fragments"),
    [
        ("FROM busybox\nRUNN echo\n", ["unknown instruction: RUNN (did you mean RUN?)", "Dockerfile:2", "RUNN echo"]),
        ("FROM busybox\nRUN echo before; exit 3\n", ["exit code: 3", "Dockerfile:2", "before", "[step-failed]"]),
        ("FROM busybox\nCOPY nope /\n", ['"/nope": not found', "Dockerfile:2"]),
        ("FROM busybox AS a\nFROM busybox\nCOPY --from=aa /x /\n", ["Dockerfile:3"]),
        ("FROM busybox\nUSER nobody-here\nRUN true\n", ["unable to find user nobody-here"]),
        ("FROM Busybox\n", ["repository name", "must be lowercase", "Dockerfile:1"]),
        ("FROM 127.0.0.1:1/none\n", ["127.0.0.1:1", "Dockerfile:1"]),
    ],
)  # fmt: skip
def test_errors_say_what_where_and_leave_nothing(
    shiplap: Shiplap, tmp_path: Path, dockerfile: str, fragments: list[str]
) -> None:
    done = shiplap.run("build", "--progress=quiet", context_of(tmp_path / "c", dockerfile), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR: ")
    for fragment in fragments:
        assert fragment in done.stderr
    assert not (shiplap.root / "tmp").exists() or leftovers(shiplap) == []


@pytest.mark.parametrize(
    ("arguments", "status", "fragment"),
    [
        (["bild", "."], 2, "did you mean build?"),
        (["build", "--tagg", "x", "."], 2, "--tag"),
        (["build", "nowhere"], 1, "unable to prepare context"),
        (["build", "--target", "x", "."], 2, "target stage"),
        (["build", "-o", "type=nope,dest=x", "."], 2, "unknown output type"),
        (["build", "--push", "."], 2, "tag is needed"),
        (["build", "--platform", "a/b/c/d", "."], 2, "failed to parse platform"),
        (["run", "nothing-here"], 1, "no such image"),
        (["load", "-i", "/dev/null"], 1, "neither an OCI nor a docker archive"),
    ],
)
def test_bad_command_lines(shiplap: Shiplap, tmp_path: Path, arguments: list[str], status: int, fragment: str) -> None:
    context_of(tmp_path, "FROM busybox\n")
    done = shiplap.run(*arguments, check=False)
    assert (done.returncode, fragment in done.stderr) == (status, True), done.stderr
    assert done.stderr.count("ERROR: ") <= 1


def test_an_interrupt_ends_soon_and_leaves_nothing(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(tmp_path / "c", "FROM busybox\nRUN echo started; sleep 60\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SHIPLAP_ROOT": str(shiplap.root), **shiplap.env}
    with subprocess.Popen(
        [*shiplap.command, "build", "--progress=plain", str(context)],
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.endswith(" started\n"):
                break
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(10) == 130
    assert time.monotonic() - began < 2
    assert "cancel" in rest and "[interrupted]" in rest
    assert leftovers(shiplap) == []
    assert str(shiplap.root) not in Path("/proc/self/mountinfo").read_text()


def test_several_builds_at_once_do_each_step_once(shiplap: Shiplap, tmp_path: Path) -> None:
    """Eight processes, one store: what they have in common is made by one of them, the others take it."""
    dockerfile = "FROM busybox AS a\nRUN sleep 0.2; echo a > /a\nFROM busybox\nCOPY --from=a /a /a\nRUN cat /a > /b\n"
    context = context_of(tmp_path / "c", dockerfile)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SHIPLAP_ROOT": str(shiplap.root), **shiplap.env}
    command = [*shiplap.command, "build", "--progress=rawjson", str(context)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) for _ in range(8)]
    ran: list[str] = []
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        facts = [json.loads(line) for line in errors.splitlines()]
        started = {
            fact["step"]: fact["name"] for fact in facts if fact["type"] == "step-started" and not fact.get("cached")
        }
        ran += [name for step, name in started.items() if step.startswith("sha256:")]
    assert sorted(ran) == sorted(set(ran))
    assert {name.partition("] ")[2] for name in ran} >= {"RUN cat /a > /b", "COPY --from=a /a /a"}
    assert leftovers(shiplap) == []


def test_a_killed_build_costs_nothing_but_itself(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(
        tmp_path / "c", "FROM busybox\nRUN echo one > /1\nRUN sleep 0.3; echo two > /2\nCOPY f /f\n", f="x" * 10**6
    )
    shiplap.run("pull", "-q", "busybox")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SHIPLAP_ROOT": str(shiplap.root), **shiplap.env}
    for delay in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        process = subprocess.Popen([*shiplap.command, "build", "-q", "--no-cache", str(context)], env=environment)
        time.sleep(delay)
        process.kill()
        process.wait()
    shiplap.run("build", "-q", "-t", "it", context)
    assert shiplap.run("run", "it", "cat", "/1", "/2").stdout == "one\ntwo\n"
    shiplap.run("prune")
    assert leftovers(shiplap) == []
    assert str(shiplap.root) not in Path("/proc/self/mountinfo").read_text()
    assert shiplap.run("run", "it", "cat", "/2").stdout == "two\n"
