"""docs/reference says what the program does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from shiplap.cli.main import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[3]
REFERENCE = REPOSITORY / "docs/reference"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_reference_generate", REFERENCE / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["command-line.md", "errors.md"])
def test_the_reference_is_up_to_date(generate: ModuleType, name: str) -> None:
    stale = f"docs/reference/{name} is stale: python docs/reference/generate.py"
    assert (REFERENCE / name).read_text() == generate.DOCUMENTS[name](), stale


def test_every_command_and_flag_of_build_is_there(generate: ModuleType) -> None:
    text = generate.command_line()
    for name in COMMANDS:
        assert f"## shiplap {name}" in text
    build = text.partition("## shiplap build\n")[2].partition("\n## ")[0]
    for action in generate.parser_of("build")._actions:
        for flag in action.option_strings:
            assert flag in build or flag in ("-h", "--help", "--root"), flag


def test_every_code_in_the_sources_is_there(generate: ModuleType) -> None:
    # A plain search: what it finds must have been found by reading the syntax, too.
    documented = set(re.findall(r"^\| `([a-z0-9-]+)` \|", generate.error_reference(), re.MULTILINE))
    written = set()
    for file in (REPOSITORY / "src").rglob("*.py"):
        written |= set(re.findall(r'\bcode="([a-z0-9-]+)"', file.read_text()))
    assert len(written) > 100
    assert written <= documented


def test_codes_are_kebab_case(generate: ModuleType) -> None:
    wrong = [raised for raised in generate.raised_errors() if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", raised.code)]
    assert wrong == []


def test_links_in_the_documents_lead_somewhere() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "src").rglob("*.md")]
    broken = [
        f"{page.relative_to(REPOSITORY)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:\s]+)[^)]*\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []
