"""``shiplap check``: the rules that need the graph, fixes that change nothing, SARIF, exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shiplap.api.checking import check_dockerfile
from shiplap.api.request import Request
from shiplap.cli.main import main
from shiplap.settings import load

GRAPH = {
    "a stage nobody reaches": ("FROM a AS x\nFROM b AS y\nFROM b\nCOPY --from=y /f /f\n", [("StageNeverReached", 1)]),
    "a stage reached by number": ("FROM a\nFROM b\nCOPY --from=0 /f /f\n", []),
    "a stage reached by a mount": ("FROM a AS x\nFROM b\nRUN --mount=from=x,target=/m true\n", []),
    "a variable may mean any stage": ("ARG S=x\nFROM a AS x\nFROM b AS y\nFROM $S\n", []),
    "a path that cannot be": (
        "FROM scratch AS x\nCOPY a /opt/a\nFROM b\nCOPY --from=x /usr/a /a\n",
        [("CopyOfMissingPath", 4)],
    ),
    "a path below what was copied": ("FROM scratch AS x\nCOPY d /opt/\nFROM b\nCOPY --from=x /opt/a/b /a\n", []),
    "a path above what was copied": ("FROM scratch AS x\nWORKDIR /w\nCOPY d e/f\nFROM b\nCOPY --from=x /w/e /a\n", []),
    "what a RUN may have written": ('FROM scratch AS x\nCOPY sh /sh\nRUN ["/sh"]\nFROM b\nCOPY --from=x /any /a\n', []),
    "what an archive may hold": ("FROM scratch AS x\nADD a.tar /\nFROM b\nCOPY --from=x /any /a\n", []),
    "all copied before the install": (
        "FROM a\nCOPY . .\nRUN pip install -r requirements.txt\n",
        [("CacheHostileOrder", 2)],
    ),
    "the lists first": ("FROM a\nCOPY requirements.txt .\nRUN pip install -r requirements.txt\nCOPY . .\n", []),
    "all of another stage": ("FROM a AS x\nFROM b\nCOPY --from=x . .\nRUN npm ci\n", []),
    "a key in a layer": ("FROM a\nCOPY id_rsa /root/.ssh/\n", [("SecretInLayer", 2)]),
    "a public key": ("FROM a\nCOPY id_rsa.pub /root/.ssh/\n", []),
    "a key in a stage that stays behind": ("FROM a AS x\nCOPY id_rsa /k\nFROM b\nCOPY --from=x /out /out\n", []),
    "a mounted secret written down": (
        "FROM a\nRUN --mount=type=secret,id=t cat /run/secrets/t > /token\n",
        [("SecretInLayer", 2)],
    ),
    "a mounted secret read": ("FROM a\nRUN --mount=type=secret,id=t curl -H @/run/secrets/t u\n", []),
    "a compiler stays": ("FROM a\nRUN apt-get update && apt-get install -y gcc make\n", [("CompilerInFinalStage", 2)]),
    "a compiler is taken away": ("FROM a\nRUN apk add gcc && make && apk del gcc\n", []),
    "a compiler in an earlier stage": ("FROM golang:1 AS x\nRUN apk add gcc\nFROM a\nCOPY --from=x /o /o\n", []),
    "made from a compiler's image": ("FROM golang:1.25\nCOPY main.go .\n", [("CompilerInFinalStage", 1)]),
    "skipped at the top": ("# check=skip=SecretInLayer\nFROM a\nCOPY .env /\n", []),
    "skipped above": ("FROM a\n# check=skip=SecretInLayer\nCOPY .env /\n", []),
}


@pytest.mark.parametrize("name", list(GRAPH))
def test_rules_of_the_graph(name: str, tmp_path: Path) -> None:
    text, expected = GRAPH[name]
    (tmp_path / "Dockerfile").write_text(text)
    settings = load({"HOME": str(tmp_path)}, root=str(tmp_path / "store"))
    checked = check_dockerfile(Request(context=tmp_path), settings)
    own = ("StageNeverReached", "CopyOfMissingPath", "CacheHostileOrder", "SecretInLayer", "CompilerInFinalStage")
    assert [(finding.rule, finding.line) for finding in checked.findings if finding.rule in own] == expected
    assert checked.error is None


def check(path: Path, *flags: str) -> int:
    return main(["check", "--root", str(path / "store"), *flags, str(path)])


def test_fixes_are_applied_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_bytes(
        b'FROM busybox as one\r\nENV A b\r\nENV B c d\r\nexpose 80/TCP\r\nENV C "q"\r\nFROM one AS Two\r\n'
    )
    assert check(tmp_path) == 1
    assert "fix (--fix): ENV A=b" in capsys.readouterr().out
    assert check(tmp_path, "--fix") == 1
    assert (tmp_path / "Dockerfile").read_bytes() == (
        b'FROM busybox AS one\r\nENV A=b\r\nENV B="c d"\r\nEXPOSE 80/tcp\r\nENV C "q"\r\nFROM one AS Two\r\n'
    )
    out = capsys.readouterr().out
    assert out.startswith("mended 5 of 7")
    assert "StageNameCasing" in out
    assert "LegacyKeyValueFormat" in out


def test_a_fix_that_would_change_the_image_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "FROM busybox\nRUN true\nrun false\n"
    (tmp_path / "Dockerfile").write_text(text)
    check(tmp_path, "--fix")
    # The keyword is no part of what a step is.
    assert (tmp_path / "Dockerfile").read_text() == text.replace("run", "RUN")
    text = "FROM busybox\nMAINTAINER me\n"
    (tmp_path / "Dockerfile").write_text(text)
    assert check(tmp_path, "--fix") == 1
    assert (tmp_path / "Dockerfile").read_text() == text


def test_nothing_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text('FROM busybox\nCMD ["true"]\n')
    assert check(tmp_path) == 0
    assert capsys.readouterr().out == "Check complete, no warnings found.\n"


def test_a_wrong_dockerfile_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FRM busybox\n")
    assert check(tmp_path) == 1
    assert "unknown instruction: FRM" in capsys.readouterr().err


def test_sarif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nENV A b\nCOPY .env /\n")
    assert check(tmp_path, "--format=sarif") == 1
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    found = {result["ruleId"]: result for result in run["results"]}
    assert set(found) == {"LegacyKeyValueFormat", "SecretInLayer"} <= rules
    place = found["SecretInLayer"]["locations"][0]["physicalLocation"]
    assert place["region"] == {"startLine": 3, "endLine": 3}
    change = found["LegacyKeyValueFormat"]["fixes"][0]["artifactChanges"][0]
    assert change["replacements"][0]["insertedContent"]["text"] == "ENV A=b"
    (tmp_path / "Dockerfile").write_text("FROM busybox\nNOPE\n")
    assert check(tmp_path, "--format=sarif") == 1
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert [result["level"] for result in run["results"]] == ["error"]


def test_json_has_the_form_of_buildkit_and_the_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nENV A b\n")
    assert check(tmp_path, "--format=json") == 1
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert (warning["ruleName"], warning["fix"]) == ("LegacyKeyValueFormat", "ENV A=b")


def test_standard_input_cannot_be_mended(tmp_path: Path) -> None:
    settings = load({"HOME": str(tmp_path)}, root=str(tmp_path / "store"))
    from shiplap.errors import ContextError

    with pytest.raises(ContextError) as error:
        check_dockerfile(Request(context=tmp_path, dockerfile_data=b"FROM a\nENV A b\n"), settings, fix=True)
    assert error.value.code == "no-file"
