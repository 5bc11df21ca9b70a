"""Whom USER and --chown mean, by the image's own files; the answers are BuildKit's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shiplap.errors import ImageError
from shiplap.ops.accounts import Accounts
from shiplap.sandbox.spec import Identity
from shiplap.trees.tree import Tree


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    etc = tmp_path / "diff/etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\nme:x:1000:1001::/home/me:/bin/sh\n# no:x:7:7\nbroken\n")
    (etc / "group").write_text("root:x:0:\nmine:x:1001:\nus:x:50:me\nwheel:x:10:root,me\n")
    with Tree((str(tmp_path / "diff"),)) as tree:
        yield Accounts(tree)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Identity(0, 0, (0, 10))),
        ("me", Identity(1000, 1001, (1001, 50, 10))),
        ("1000", Identity(1000, 1001, (1001, 50, 10))),
        ("me:us", Identity(1000, 50, (50,))),
        ("1000:7", Identity(1000, 7, (7,))),
        ("9", Identity(9, 0, (0,))),
    ],
)
def test_who_runs_a_step(accounts: Accounts, text: str, expected: Identity) -> None:
    assert accounts.identity(text) == expected


@pytest.mark.parametrize("text", ["nobody", "me:nobodies"])
def test_unknown_names_stop_a_step(accounts: Accounts, text: str) -> None:
    with pytest.raises(ImageError, match="unable to find"):
        accounts.identity(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("me", (1000, 1001)),
        ("me:us", (1000, 50)),
        ("me:", (1000, 0)),
        ("me:nobodies", (1000, 1001)),
        ("5", (5, 5)),
        ("5:nobodies", (5, 5)),
        (":us", (0, 50)),
        ("nobody", (0, 0)),
        ("nobody:6", (0, 6)),
    ],
)
def test_whom_chown_means(accounts: Accounts, text: str, expected: tuple[int, int]) -> None:
    assert accounts.owner(text) == expected
