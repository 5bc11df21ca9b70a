"""What counts as an address of a context, and as an archive; images in OCI layouts."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from shiplap.api.context import is_remote
from shiplap.api.layout import find_layout
from shiplap.api.remote import _git_url, is_archive, named_remote
from shiplap.errors import ContextError

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        (".", False), ("dir", False), ("../up", False), ("C:x", False), ("http:/x", False), ("file:///x", False),
        ("https://h/x", True), ("http://h/x.git#a:b", True), ("git://h/x", True), ("ssh://git@h/x", True),
        ("git@host:x.git", True), ("github.com/o/r", True), ("host/o/r", False),
    ],
)  # fmt: skip
def test_addresses(text: str, remote: bool) -> None:
    assert is_remote(text) is remote


def test_a_directory_called_github_com_is_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "github.com/o/r").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_remote("github.com/o/r")


def test_github_shorthand() -> None:
    url = _git_url("github.com/o/r#v1:sub")
    assert url is not None and (url.remote, url.ref, url.subdir) == ("https://github.com/o/r.git", "v1", "sub")
    assert _git_url("https://h/a.tar.gz") is None


def test_named_contexts() -> None:
    assert named_remote("https://h/r.git#x").kind == "git"
    assert named_remote("git@h:r").kind == "git"
    assert named_remote("https://h/r.tar").kind == "http"
    with pytest.raises(ContextError) as caught:
        named_remote("https://h/r.git?what=ever")
    assert caught.value.code == "invalid-context"


def test_archives_are_known_by_content() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        made.addfile(tarfile.TarInfo("x"))
    assert is_archive(out.getvalue()[:1024])
    for head in (b"\x1f\x8b\x08\0", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"):
        assert is_archive(head)
    for head in (b"", b"FROM scratch\n", b"\0" * 1024, b"#" * 1024):
        assert not is_archive(head)


def layout(directory: Path, *names: str) -> Path:
    directory.mkdir()
    manifests = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:" + f"{number:064x}",
            "size": 1,
            "annotations": {"org.opencontainers.image.ref.name": name},
        }
        for number, name in enumerate(names)
    ]
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return directory


def test_layouts_by_tag_and_digest(tmp_path: Path) -> None:
    two = layout(tmp_path / "two", "v1", "docker.io/library/x:latest")
    one = layout(tmp_path / "o:ne", "v1")
    last = f"@sha256:{1:064x}"
    assert find_layout("b", f"oci-layout://{two}")[0].endswith(last)
    assert find_layout("b", f"oci-layout://{two}:latest")[0].endswith(last)
    assert find_layout("b", f"oci-layout://{two}:v1")[0].endswith(f"@sha256:{0:064x}")
    assert find_layout("b", f"oci-layout://{one}")[1] == one
    reference, directory = find_layout("b", f"oci-layout://{two}@{DIGEST}")
    assert reference.endswith("@" + DIGEST) and directory == two


@pytest.mark.parametrize("rest", [":v9", "@sha256:abc", "@../../x", "/none", ":", ""])
def test_layouts_that_are_not_there(tmp_path: Path, rest: str) -> None:
    base = layout(tmp_path / "two", "v1", "v2") if rest else ""
    with pytest.raises(ContextError) as caught:
        find_layout("b", f"oci-layout://{base}{rest}")
    assert caught.value.code == "invalid-context"
