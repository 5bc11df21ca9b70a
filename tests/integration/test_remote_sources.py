"""ADD of URLs and git repositories, contexts from elsewhere: over real HTTP and real git, on loopback."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import Shiplap, program, wait_for
from web import Page, Repository, Web

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
MOMENT = 1445412480


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "repositories").mkdir()
    served = Web(tmp_path / "repositories")
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.fixture
def alone(tmp_path: Path) -> Shiplap:
    """shiplap with an empty store and no registry."""
    return Shiplap(tmp_path / "store", {}, tmp_path)


@pytest.fixture
def repository(web: Web) -> Repository:
    repo = Repository(web)
    repo.write("Dockerfile", "FROM scratch\nCOPY . /all\n")
    repo.write(".dockerignore", "notes\n")
    repo.write("notes", "kept all the same\n")
    repo.write("sub/deep/file", "one\n")
    repo.write("sub/run", "#!/bin/sh\n", 0o755)
    repo.commit()
    return repo


def build(shiplap: Shiplap, dockerfile: str, *flags: str, check: bool = True, **env: str) -> dict[str, tarfile.TarInfo]:
    """Build onto nothing; the entries of the result, and ``data`` of files in their ``pax_headers``."""
    context = shiplap.root.parent / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    return entries(shiplap, *flags, context, **env)


def entries(shiplap: Shiplap, *arguments: str | Path, **env: str) -> dict[str, tarfile.TarInfo]:
    out = shiplap.root.parent / "out.tar"
    shiplap.run("build", "--progress=plain", "-o", f"type=tar,dest={out}", *arguments, **env)
    found = {}
    with tarfile.open(out) as archive:
        for member in archive:
            if member.isfile():
                file = archive.extractfile(member)
                assert file is not None
                member.pax_headers = {"data": file.read().decode("utf-8", "replace")}
            found[member.name.removeprefix("./").rstrip("/")] = member
    return found


def text(member: tarfile.TarInfo) -> str:
    return str(member.pax_headers["data"])


def refused(shiplap: Shiplap, dockerfile: str, *flags: str | Path) -> str:
    """Build, which must fail; what was said."""
    context = shiplap.root.parent / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    done = shiplap.run("build", "--progress=plain", *flags, context, check=False)
    assert done.returncode == 1, done.stderr
    assert not os.listdir(shiplap.root / "tmp")
    return done.stderr


# -- URLs


def test_a_url_is_a_file_for_root_alone_with_the_servers_time(web: Web, alone: Shiplap) -> None:
    web.pages["/dir/the%20file.txt?v=1"] = Page(b"content", {"Last-Modified": DATE})
    web.pages["/"] = Page(b"no name")
    found = build(alone, f"FROM scratch\nADD {web.url}/dir/the%20file.txt?v=1 {web.url}/ /d/\n")
    entry = found["d/the file.txt"]
    assert (text(entry), entry.mode, entry.mtime, entry.uid, entry.gid) == ("content", 0o600, MOMENT, 0, 0)
    assert (text(found["d/__unnamed__"]), found["d/__unnamed__"].mtime) == ("no name", 0)


def test_an_unchanged_url_costs_a_request_without_a_body(web: Web, alone: Shiplap) -> None:
    page = web.pages["/f"] = Page(b"x" * 100_000, {"ETag": '"one"'})
    dockerfile = f"FROM scratch\nADD {web.url}/f /f\n"
    build(alone, dockerfile)
    build(alone, dockerfile)
    assert web.sent == 100_000
    assert [asked[2].get("If-None-Match") for asked in web.asked] == [None, '"one"']
    page.data, page.headers = b"new", {"ETag": '"two"'}
    assert text(build(alone, dockerfile)["f"]) == "new"


def test_last_modified_serves_where_there_is_no_etag(web: Web, alone: Shiplap) -> None:
    web.pages["/f"] = Page(b"x" * 1000, {"Last-Modified": DATE})
    for _ in range(2):
        build(alone, f"FROM scratch\nADD {web.url}/f /f\n")
    assert web.sent == 1000


def test_a_server_that_ignores_conditions_is_not_read_to_the_end(web: Web, alone: Shiplap) -> None:
    web.pages["/f"] = Page(b"x" * (32 << 20), {"ETag": 'W/"one"'}, conditional=False)
    for _ in range(2):
        build(alone, f"FROM scratch\nADD {web.url}/f /f\n")
    assert web.sent == 32 << 20


def test_the_step_is_cached_by_content(web: Web, alone: Shiplap) -> None:
    page = web.pages["/f"] = Page(b"same")
    dockerfile = f"FROM scratch\nADD {web.url}/f /f\n"
    build(alone, dockerfile)
    page.headers["Last-Modified"] = DATE
    context = alone.root.parent / "context"
    assert ": 0 steps run, 1 reused" in alone.run("build", "--progress=plain", context).stderr


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_checksum(web: Web, alone: Shiplap, algorithm: str) -> None:
    web.pages["/f"] = Page(b"content", {"ETag": '"1"'})
    right = f"{algorithm}:{hashlib.new(algorithm, b'content').hexdigest()}"
    wrong = f"{algorithm}:{hashlib.new(algorithm, b'other').hexdigest()}"
    dockerfile = f"FROM scratch\nADD --checksum={{}} {web.url}/f /f\n"
    said = refused(alone, dockerfile.format(wrong))
    assert f"digest mismatch for {web.url}/f: {right} (expected: {wrong}) [digest-mismatch]" in said
    assert text(build(alone, dockerfile.format(right))["f"]) == "content"
    asked = len(web.asked)
    build(alone, dockerfile.format(right))
    assert len(web.asked) == asked  # what is here is what was asked for
    assert "digest mismatch" in refused(alone, dockerfile.format(wrong))


def test_redirects_are_followed_and_do_not_carry_the_login_to_another_host(web: Web, alone: Shiplap) -> None:
    other = web.url.replace("127.0.0.1", "localhost")
    web.pages["/a"] = Page(b"", {"Location": "/b"}, 302, login="Bearer geheim")
    web.pages["/b"] = Page(b"", {"Location": f"{other}/c"}, 307, login="Bearer geheim")
    web.pages["/c"] = Page(b"", {"Location": f"{web.url}/d"}, 301)
    web.pages["/d"] = Page(b"there")
    secret = "--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN"
    found = build(alone, f"FROM scratch\nADD {web.url}/a /\n", secret, TOKEN="geheim\n")
    assert text(found["a"]) == "there"
    assert ["Authorization" in headers for _, _, headers in web.asked] == [True, True, False, False]
    held = [file for file in alone.root.rglob("*") if file.is_file() and b"geheim" in file.read_bytes()]
    assert held == []


def test_endless_redirects(web: Web, alone: Shiplap) -> None:
    web.pages["/a"] = Page(b"", {"Location": "/a"}, 302)
    assert "too-many-redirects" in refused(alone, f"FROM scratch\nADD {web.url}/a /\n")
    assert len(web.asked) == 11


def test_name_and_password_in_the_url_are_sent_and_not_shown(web: Web, alone: Shiplap) -> None:
    web.pages["/f"] = Page(b"in", login="Basic " + "bWU6Z2VoZWlt")
    url = web.url.replace("//", "//me:geheim@")
    assert text(build(alone, f"FROM scratch\nADD {url}/f /\n")["f"]) == "in"
    context = alone.root.parent / "context"
    said = alone.run("build", "--progress=plain", "--no-cache", context).stderr
    assert f"load http source {web.url}/f" in said


def test_a_missing_page_is_told_with_its_line(web: Web, alone: Shiplap) -> None:
    said = refused(alone, f"FROM scratch\nADD {web.url}/gone?key=geheim /\n")
    assert f"{web.url}/gone: invalid response status 404 [http-status]" in said
    assert "Dockerfile:2" in said and "try: " in said


def test_a_url_that_asks_for_a_login_says_how_to_give_one(web: Web, alone: Shiplap) -> None:
    web.pages["/f"] = Page(b"in", login="Bearer x")
    assert "--secret id=HTTP_AUTH_TOKEN_127.0.0.1,env=NAME" in refused(alone, f"FROM scratch\nADD {web.url}/f /\n")


def test_an_interrupt_does_not_wait_for_a_silent_server(alone: Shiplap, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for number, source in enumerate((f"http://127.0.0.1:{port}/f", f"git://127.0.0.1:{port}/r.git")):
            context = tmp_path / f"c{number}"
            context.mkdir()
            (context / "Dockerfile").write_text(f"FROM scratch\nADD {source} /\n")
            env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SHIPLAP_ROOT": str(alone.root)}
            with subprocess.Popen([*alone.command, "build", str(context)], env=env, stderr=subprocess.PIPE) as process:
                connection, _ = silent.accept()
                with connection:
                    began = time.monotonic()
                    process.send_signal(signal.SIGINT)
                    assert process.wait(20) == 130
                    assert time.monotonic() - began < 5
            assert not os.listdir(alone.root / "tmp")


def test_no_server(alone: Shiplap) -> None:
    said = refused(alone, "FROM scratch\nADD http://127.0.0.1:9/f /\n")
    assert "connection refused [connection-refused]" in said and "registr" not in said


def test_an_archive_from_a_url_is_unpacked_on_demand(web: Web, alone: Shiplap) -> None:
    web.pages["/a.tar.gz"] = Page(archive({"inner": b"data"}))
    dockerfile = f"FROM scratch\nADD {web.url}/a.tar.gz /plain/\nADD --unpack=true {web.url}/a.tar.gz /out/\n"
    found = build(alone, dockerfile)
    assert "plain/a.tar.gz" in found and text(found["out/inner"]) == "data"


def archive(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            made.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid = len(data), 1234
            made.addfile(member, io.BytesIO(data))
    return out.getvalue()


# -- git


def test_a_repository_goes_into_the_destination(repository: Repository, alone: Shiplap) -> None:
    found = build(alone, f"FROM scratch\nADD {repository.url} /src\n")
    assert text(found["src/sub/deep/file"]) == "one\n"
    assert (found["src/sub/deep/file"].mode, found["src/sub/run"].mode) == (0o644, 0o755)
    assert {(e.uid, e.gid) for e in found.values()} == {(0, 0)}
    assert "src/notes" in found and not any(".git" in name.split("/") for name in found)


def test_refs(repository: Repository, alone: Shiplap) -> None:
    first = repository.git("rev-parse", "HEAD").strip()
    repository.git("tag", "light")
    repository.git("tag", "-a", "-m", "annotated", "heavy")
    repository.git("checkout", "-q", "-b", "feature/x")
    repository.write("sub/deep/file", "two\n")
    second = repository.commit()
    repository.git("checkout", "-q", "main")
    for ref, wanted in (
        ("", "one\n"), ("main", "one\n"), ("feature/x", "two\n"), ("refs/heads/feature/x", "two\n"), ("light", "one\n"),
        ("heavy", "one\n"), ("refs/tags/heavy", "one\n"), (first, "one\n"), (second, "two\n"), ("HEAD", "one\n"),
    ):  # fmt: skip
        found = build(alone, f"FROM scratch\nADD {repository.url}#{ref} /\n")
        assert text(found["sub/deep/file"]) == wanted, ref
    assert text(build(alone, f"FROM scratch\nADD {repository.url}?tag=heavy&subdir=sub /\n")["deep/file"]) == "one\n"
    said = refused(alone, f"FROM scratch\nADD {repository.url}#nothing /\n")
    assert f"repository does not contain ref nothing: {repository.url} [no-such-ref]" in said


def test_a_known_commit_is_not_asked_for_again(web: Web, repository: Repository, alone: Shiplap) -> None:
    commit = repository.git("rev-parse", "HEAD").strip()
    build(alone, f"FROM scratch\nADD {repository.url}#{commit} /\n")
    asked = len(web.asked)
    build(alone, f"FROM scratch\nADD {repository.url}#{commit} /\n")
    assert len(web.asked) == asked
    build(alone, f"FROM scratch\nADD {repository.url}#main /\n")
    assert {path.partition("?")[0] for _, path, _ in web.asked[asked:]} <= {
        "/git/repo.git/info/refs",
        "/git/repo.git/git-upload-pack",
    }
    context = alone.root.parent / "context"
    assert ": 0 steps run, 1 reused" in alone.run("build", "--progress=plain", context).stderr


def test_a_moved_branch_is_seen_even_if_it_went_backwards(repository: Repository, alone: Shiplap) -> None:
    dockerfile = f"FROM scratch\nADD {repository.url}#main:sub/deep /\n"
    for content in ("two\n", "three\n"):
        repository.write("sub/deep/file", content)
        repository.commit()
        assert text(build(alone, dockerfile)["file"]) == content
    repository.git("reset", "-q", "--hard", "HEAD~2")
    assert text(build(alone, dockerfile)["file"]) == "one\n"


def test_a_damaged_mirror_is_made_anew(repository: Repository, alone: Shiplap) -> None:
    build(alone, f"FROM scratch\nADD {repository.url} /\n")
    (mirror,) = (path for path in (alone.root / "git").iterdir() if path.is_dir())
    for file in (mirror / "objects").rglob("*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(b"junk")
    (mirror / "shallow.lock").touch()
    repository.write("sub/deep/file", "two\n")
    repository.commit()
    assert text(build(alone, f"FROM scratch\nADD {repository.url} /\n")["sub/deep/file"]) == "two\n"


def test_keep_git_dir(repository: Repository, alone: Shiplap, tmp_path: Path) -> None:
    commit = repository.git("rev-parse", "HEAD").strip()
    url = repository.url.replace("//", "//me:geheim@")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM scratch\nADD --keep-git-dir=true {url}#main /\n")
    alone.run("build", "-o", tmp_path / "out", context)
    inside = ["-c", f"safe.directory={tmp_path}/out"]
    assert repository.git(*inside, "rev-parse", "HEAD", cwd=tmp_path / "out").strip() == commit
    assert repository.git(*inside, "status", "--porcelain", cwd=tmp_path / "out") == ""
    assert repository.git(*inside, "rev-parse", "refs/heads/main", cwd=tmp_path / "out").strip() == commit
    config = (tmp_path / "out/.git/config").read_text()
    assert repository.url in config and "geheim" not in config and str(alone.root) not in config


def test_submodules(web: Web, repository: Repository, alone: Shiplap) -> None:
    inner = Repository(web, "inner.git")
    inner.write("data", "from the submodule\n")
    inner.commit()
    repository.git("-c", "protocol.allow=always", "submodule", "--quiet", "add", "../inner.git", "mod")
    (repository.path / ".gitmodules").write_text('[submodule "mod"]\n\tpath = mod\n\turl = ../inner.git\n')
    repository.commit()
    found = build(alone, f"FROM scratch\nADD {repository.url} /\n")
    assert text(found["mod/data"]) == "from the submodule\n" and "mod/.git" not in found
    found = build(alone, f"FROM scratch\nADD {repository.url}?submodules=false /\n")
    assert "mod/data" not in found and "sub/run" in found


def test_checksum_of_a_commit(repository: Repository, alone: Shiplap) -> None:
    commit = repository.git("rev-parse", "HEAD").strip()
    repository.git("tag", "-a", "-m", "annotated", "v1")
    for ref in ("main", "v1", commit):
        build(alone, f"FROM scratch\nADD --checksum={commit[:12]} {repository.url}#{ref} /\n")
    said = refused(alone, f"FROM scratch\nADD {repository.url}?branch=main&checksum={'0' * 40} /\n")
    assert f"expected checksum to match {'0' * 40}, got {commit} [digest-mismatch]" in said


def test_a_token_opens_a_private_repository(web: Web, repository: Repository, alone: Shiplap) -> None:
    web.git_login = "basic eC1hY2Nlc3MtdG9rZW46Z2VoZWlt"  # x-access-token:geheim
    said = refused(alone, f"FROM scratch\nADD {repository.url} /\n")
    assert "--secret id=GIT_AUTH_TOKEN,env=NAME" in said
    found = build(alone, f"FROM scratch\nADD {repository.url} /\n", "--secret=id=GIT_AUTH_TOKEN,env=T", T="geheim")
    assert "sub/run" in found
    secrets = (b"geheim", b"Z2VoZWlt")
    assert not [f for f in alone.root.rglob("*") if f.is_file() and any(s in f.read_bytes() for s in secrets)]


def test_ssh_goes_by_the_agent(repository: Repository, alone: Shiplap, tmp_path: Path) -> None:
    """ssh itself is a stand-in, which runs what it is asked to run; git and its protocol are real."""
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin/ssh"
    stand_in.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" "$SSH_AUTH_SOCK" > {tmp_path}/asked\nfor c; do :; done\nexec sh -c "$c"\n'
    )
    stand_in.chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    dockerfile = (
        f"FROM scratch\nADD git@example.com:{repository.path} /\nADD ssh://git@example.com{repository.path} /two\n"
    )
    assert 'no SSH key "default" forwarded from the client [ssh-not-forwarded]' in refused(alone, dockerfile)
    found = build(alone, dockerfile, f"--ssh=default={tmp_path}/agent", PATH=path)
    assert "sub/run" in found and "two/sub/run" in found
    asked = (tmp_path / "asked").read_text()
    assert "BatchMode=yes" in asked and f"{tmp_path}/agent" in asked and "git@example.com" in asked


# -- git: what must not work (reference/security 1A)


@pytest.mark.parametrize("form", ["../../escape", "sub/../../escape", "/abs", "link", "link/escape", "sub/run", "none"])
def test_a_subdir_is_a_real_directory_inside(repository: Repository, alone: Shiplap, tmp_path: Path, form: str) -> None:
    (tmp_path / "escape").mkdir()
    (tmp_path / "escape/canary").write_text("canary")
    (repository.path / "link").symlink_to(tmp_path)
    repository.commit()
    for text in (f"{repository.url}#main:{form}", f"{repository.url}?branch=main&subdir={form}"):
        said = refused(alone, f"FROM scratch\nADD {text} /\n")
        assert "invalid subdir" in said and "[not-found]" in said and "canary" not in said


def test_submodules_may_not_be_files_of_this_machine(web: Web, repository: Repository, alone: Shiplap) -> None:
    inner = Repository(web, "inner.git")
    inner.write("data", "x")
    inner.commit()
    repository.git("submodule", "--quiet", "add", f"file://{inner.path}", "mod")
    repository.commit()
    assert "transport 'file' not allowed" in refused(alone, f"FROM scratch\nADD {repository.url} /\n")


def test_no_hook_and_no_configuration_of_the_user_runs(repository: Repository, alone: Shiplap, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (hooks / name).chmod(0o755)
    (tmp_path / ".gitconfig").write_text(
        f'[core]\n\thooksPath = {hooks}\n[filter "f"]\n\tsmudge = touch {tmp_path}/ran\n'
    )
    repository.write(".gitattributes", "* filter=f\n")
    repository.commit()
    env = {
        "GIT_CONFIG_GLOBAL": str(tmp_path / ".gitconfig"),
        "GIT_TEMPLATE_DIR": str(hooks),
        "GIT_DIR": str(repository.path),
    }
    for flag in ("false", "true"):
        build(alone, f"FROM scratch\nADD --keep-git-dir={flag} {repository.url} /\n", **env)
    assert not (tmp_path / "ran").exists()


# -- contexts


def test_a_repository_as_the_context(repository: Repository, alone: Shiplap) -> None:
    found = entries(alone, f"{repository.url}#main")
    assert text(found["all/notes"]) == "kept all the same\n"  # ignore files are for directories of this machine
    repository.write("sub/other.Dockerfile", "FROM scratch\nCOPY deep/file /f\n")
    repository.commit()
    found = entries(alone, "-f", "other.Dockerfile", f"{repository.url}#main:sub")
    assert set(found) == {"f"}
    done = alone.run("build", f"{repository.url}#main:sub", check=False)
    assert "failed to read dockerfile: open Dockerfile: no such file or directory" in done.stderr


def test_an_archive_as_the_context(web: Web, alone: Shiplap) -> None:
    files = {"Dockerfile": b"FROM scratch\nCOPY f /f\n", "f": b"data", ".dockerignore": b"f\n"}
    web.pages["/context.tar.gz"] = Page(archive(files), {"ETag": '"1"'})
    found = entries(alone, f"{web.url}/context.tar.gz")
    assert text(found["f"]) == "data" and found["f"].uid == 1234
    assert ": 0 steps run, " in alone.run("build", "--progress=plain", f"{web.url}/context.tar.gz").stderr


def test_a_dockerfile_alone_as_the_context(web: Web, alone: Shiplap) -> None:
    web.pages["/some/Dockerfile"] = Page(b"FROM scratch\nCOPY <<EOF /f\nhello\nEOF\n")
    assert text(entries(alone, f"{web.url}/some/Dockerfile")["f"]) == "hello\n"


def test_an_archive_does_not_write_through_its_links(web: Web, alone: Shiplap, tmp_path: Path) -> None:
    """CVE-2026-44517 (b): a link named Dockerfile, then junk; the file behind it stays what it was, and unread."""
    host = tmp_path / "host"
    host.write_text("FROM scratch\nLABEL canary=1\n")
    web.pages["/c.tar.gz"] = Page(archive({}, {"Dockerfile": str(host)}) + b"junk")
    done = alone.run("build", f"{web.url}/c.tar.gz", check=False)
    assert done.returncode == 1 and "canary" not in done.stderr
    assert host.read_text() == "FROM scratch\nLABEL canary=1\n"


def test_named_contexts(web: Web, repository: Repository, alone: Shiplap) -> None:
    web.pages["/page"] = Page(b"a page")
    dockerfile = "FROM scratch\nCOPY --from=code sub/run /run\nCOPY --from=page context /page\n"
    found = build(
        alone, dockerfile, f"--build-context=code={repository.url}#main", f"--build-context=page={web.url}/page"
    )
    assert text(found["run"]) == "#!/bin/sh\n" and text(found["page"]) == "a page"
    found = build(alone, "FROM code\nCOPY --from=page /context /\n", f"--build-context=code={repository.url}",
                  f"--build-context=page={web.url}/page")  # fmt: skip
    assert "sub/run" in found and "context" in found


def test_an_oci_layout_as_a_named_context(alone: Shiplap, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nENV A=b\nCOPY <<EOF /base\nfrom the base\nEOF\n")
    alone.run("build", "-t", "base:v1", "-o", f"type=oci,dest={tmp_path}/base.tar", context)
    layout = tmp_path / "layout"
    with tarfile.open(tmp_path / "base.tar") as made:
        made.extractall(layout)
    fresh = Shiplap(tmp_path / "fresh" / "store", {}, tmp_path)
    fresh.root.parent.mkdir()
    dockerfile = "FROM base\nCOPY --from=base /base /copy\n"
    for value in (f"{layout}", f"{layout}:v1"):
        found = build(fresh, dockerfile, f"--build-context=base=oci-layout://{value}")
        assert text(found["base"]) == text(found["copy"]) == "from the base\n"
    said = refused(fresh, dockerfile, f"--build-context=base=oci-layout://{layout}:v2")
    assert "the layout has no image tagged v2 [invalid-context]" in said
    assert fresh.run("images").stdout.count("oci-layout") == 0


def test_prune_takes_mirrors_and_pages(web: Web, repository: Repository, alone: Shiplap) -> None:
    web.pages["/f"] = Page(b"data", {"ETag": '"1"'})
    dockerfile = f"FROM scratch\nADD {web.url}/f {repository.url} /\n"
    build(alone, dockerfile)
    alone.run("prune", "--force")
    assert not [path for path in (alone.root / "git").iterdir() if path.is_dir()]
    assert text(build(alone, dockerfile)["f"]) == "data"


# -- ssh in a step


def program_with_libraries(name: str, root: Path) -> None:
    """Put a program of this machine, and the libraries it needs, below ``root`` where it looks for them."""
    path = program(name)
    needed = re.findall(
        r"(/\S+) \(0x", subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    )
    for file, place in ((path, f"/bin/{name}"), *((library, library) for library in needed)):
        target = root / place.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(file), target)


def test_a_step_sees_the_agent_and_the_next_one_does_not(shiplap: Shiplap, tmp_path: Path) -> None:
    agent_socket = Path(tempfile.gettempdir()) / f"shiplap-agent-{os.getpid()}"  # a socket's path has at most 107 bytes
    with subprocess.Popen([program("ssh-agent"), "-D", "-a", str(agent_socket)], stdout=subprocess.DEVNULL) as agent:
        try:
            wait_for(agent_socket.exists, "ssh-agent")
            env = {"SSH_AUTH_SOCK": str(agent_socket)}
            key = str(tmp_path / "key")
            subprocess.run(
                [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", key], check=True
            )
            subprocess.run([program("ssh-add"), "-q", key], check=True, env={**os.environ, **env})
            context = tmp_path / "context"
            program_with_libraries("ssh-add", context / "root")
            (context / "Dockerfile").write_text(
                "FROM busybox\nCOPY root /\n"
                "RUN --mount=type=ssh ssh-add -l > /first && echo $SSH_AUTH_SOCK >> /first\n"
                "RUN ssh-add -l > /second 2>&1; echo $? $SSH_AUTH_SOCK >> /second; ls -A /run >> /second 2>&1; true\n"
            )
            shiplap.run("build", "--ssh", "default", "-o", tmp_path / "out", context, **env)
            first = (tmp_path / "out/first").read_text().splitlines()
            assert "mine (ED25519)" in first[0] and first[1] == "/run/buildkit/ssh_agent.0"
            second = (tmp_path / "out/second").read_text()
            assert "Could not open a connection to your authentication agent" in second and "\n2\n" in second
            assert not any(
                os.path.lexists(tmp_path / "out" / left) for left in ("run/buildkit/ssh_agent.0", "run/buildkit")
            )
            (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=ssh,required=true true\n")
            assert "[ssh-not-forwarded]" in shiplap.run("build", context, check=False).stderr
        finally:
            agent.terminate()
            agent_socket.unlink(missing_ok=True)


def test_nothing_tells_what_lets_one_in(alone: Shiplap, web: Web, repository: Repository, tmp_path: Path) -> None:
    """Secrets, names, passwords and tokens of addresses: in no blob, attestation, record, metadata or word."""
    canaries = [f"canary{number:02}x" for number in range(12)]
    user, password, token, signature, name, word, one, two, proxy, bare, context_user, context_word = canaries
    web.git_login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    basic = "Basic " + base64.b64encode(f"{context_user}:{context_word}".encode()).decode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        text = b"FROM scratch\nCOPY --from=more / /more/\nCOPY --from=repo / /repo/\n"
        (header := tarfile.TarInfo("Dockerfile")).size = len(text)
        packed.addfile(header, io.BytesIO(text))
    web.pages[f"/context.tar?X-Amz-Signature={signature}"] = Page(archive.getvalue(), login=basic)
    login = "Basic " + base64.b64encode(f"{name}:{word}".encode()).decode()
    web.pages[f"/more?token={token}"] = Page(b"more", login=login)
    (tmp_path / "secret").write_text(one)
    host = web.url.removeprefix("http://")
    done = alone.run(
        "build", "--progress=rawjson", "--provenance=mode=max", "--sbom=true", "-t", "told",
        "--metadata-file", tmp_path / "meta.json",
        "--secret", f"id=one,src={tmp_path / 'secret'}", "--secret", "id=two,env=TWO",
        "--build-arg", f"HTTPS_PROXY=http://me:{proxy}@127.0.0.1:9", "--build-arg", f"all_proxy=me:{bare}@127.0.0.1:9",
        "--build-context", f"more=http://{name}:{word}@{host}/more?token={token}",
        "--build-context", f"repo=http://{user}:{password}@{host}/git/repo.git#main:sub",
        "-o", f"type=oci,dest={tmp_path / 'told.tar'}", "-o", f"type=local,dest={tmp_path / 'told'}", "-o", "type=image",
        f"http://{context_user}:{context_word}@{host}/context.tar?X-Amz-Signature={signature}",
        TWO=two, BUILDX_METADATA_PROVENANCE="max",
    )  # fmt: skip
    (tmp_path / "said").write_text(done.stdout + done.stderr)
    assert (tmp_path / "told" / "repo" / "run").exists()
    statement = json.loads((tmp_path / "told" / "provenance.json").read_text())["predicate"]["buildDefinition"]
    assert {material["uri"] for material in statement["resolvedDependencies"]} == {
        f"http://xxxxx:xxxxx@{host}/context.tar?X-Amz-Signature=xxxxx",
        f"http://xxxxx:xxxxx@{host}/more?token=xxxxx",
        f"http://xxxxx:xxxxx@{host}/git/repo.git#main",
    }
    assert statement["externalParameters"]["configSource"]["digest"]
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.name != "secret" and not file.is_relative_to(tmp_path / "repositories"):
            found = [canary for canary in canaries if canary.encode() in file.read_bytes()]
            assert not found, f"{file}: {found}"
