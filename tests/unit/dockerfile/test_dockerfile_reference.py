"""docs/reference/dockerfile.md knows every instruction, flag and mount key that is read, and every way shiplap differs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shiplap.dockerfile import mounts, reader
from shiplap.dockerfile.giturl import _QUERY
from shiplap.dockerfile.statement import KEYWORDS

REPOSITORY = Path(__file__).resolve().parents[3]
TEXT = (REPOSITORY / "docs/reference/dockerfile.md").read_text()
CASES = REPOSITORY / "tests/conformance/cases"
FLAGS = {
    "FROM": {"platform"},
    "RUN": set(reader._RUN_FLAGS),
    "COPY": set(reader._COPY_FLAGS),
    "ADD": set(reader._ADD_FLAGS),
    "HEALTHCHECK": set(reader._HEALTH_FLAGS),
}


@pytest.mark.parametrize("keyword", sorted(keyword.upper() for keyword in KEYWORDS))
def test_every_instruction_has_a_row_with_its_flags(keyword: str) -> None:
    rows = [row for row in TEXT.splitlines() if re.match(rf"\| .*`{keyword}\b", row)]
    assert rows
    named = {flag for row in rows for flag in re.findall(r"`--([a-z-]+)`", row.split("|")[2])}
    assert named == FLAGS.get(keyword, set())


def test_every_kind_of_mount_has_a_row_and_every_key_is_named() -> None:
    for kind in mounts.KINDS:
        assert f"`--mount=type={kind}`" in TEXT
    for word in (*mounts._KEYS, *mounts.SHARING):
        assert f"`{word}`" in TEXT or word in ("type", "readwrite"), word
    for word in _QUERY:
        assert f"`{word}`" in TEXT, word


def test_every_difference_is_linked_and_every_link_leads_to_one() -> None:
    linked = set(re.findall(r"tests/conformance/cases/([a-z0-9-]+)/differs\.txt", TEXT))
    assert linked == {file.parent.name for file in CASES.glob("*/differs.txt")}
