"""Typed instructions, and errors that point at what is wrong."""

from __future__ import annotations

import pickle

import pytest

from shiplap.dockerfile import instructions as kinds
from shiplap.dockerfile.instructions import Instruction
from shiplap.dockerfile.parse import parse
from shiplap.dockerfile.statement import split_words
from shiplap.errors import DockerfileError


def one(text: str) -> Instruction:
    return parse(f"FROM x\n{text}\n".encode(), "Dockerfile").stages[0].commands[0]


def test_from() -> None:
    stage = parse(b"from --platform=$P x:1 As Base.1\n", "d/Dockerfile").stages[0]
    assert (stage.origin.base, stage.name, stage.origin.name_typed) == ("x:1", "base.1", "Base.1")
    assert (stage.origin.as_typed, stage.origin.platform) == ("As", "$P")


def test_copy_takes_every_flag() -> None:
    copy = one('COPY --from=a --chown="b c" --chmod=u+x --link --parents=TRUE --exclude=1 --exclude=2 s t d/')
    assert isinstance(copy, kinds.Copy)
    assert (copy.from_, copy.chown, copy.chmod, copy.link, copy.parents) == ("a", "b c", "u+x", True, True)
    assert (copy.exclude, copy.sources, copy.dest) == (("1", "2"), ("s", "t"), "d/")


def test_add_tells_unset_from_false() -> None:
    add = one("ADD --unpack=false a b")
    assert isinstance(add, kinds.Add)
    assert (add.unpack, add.keep_git_dir, add.link) == (False, None, False)


def test_heredoc_sources() -> None:
    copy = one("COPY a <<-E <<'F' /d\n\tx\n\tE\ny\nF")
    assert isinstance(copy, kinds.Copy)
    assert copy.sources == ("a",)
    assert copy.inline == (kinds.InlineSource("E", "x\n", True), kinds.InlineSource("F", "y\n", False))


def test_run() -> None:
    run = one("RUN --mount=from=s,target=/a --mount=type=tmpfs,target=/b --network=none echo  a")
    assert isinstance(run, kinds.Run)
    assert run.mount_from == ("s", "")
    assert (run.args, run.shell, run.network) == (("echo  a",), True, "none")


def test_onbuild_keeps_its_text() -> None:
    onbuild = one("onbuild  RUN <<E  x\nbody\nE")
    assert isinstance(onbuild, kinds.Onbuild)
    assert onbuild.trigger == "RUN <<E  x\nbody\nE"


def test_words_keep_quotes_and_escapes() -> None:
    assert split_words("""a "b c"  d\\ e 'f\\' "g\\" h" """, "\\") == ["a", '"b c"', "d\\ e", "'f\\'", '"g\\" h"']
    assert split_words("''", "\\") == ["''"]
    assert split_words("a\\", "\\") == ["a"]


@pytest.mark.parametrize(
    ("text", "marked", "hint"),
    [
        ("RUNN true", "RUNN", "RUN"),
        ("COPY --chownn=1 a b", "--chownn", "--chown"),
        ("ENV a=1 b", "b", "quote a value that holds spaces"),
        ("HEALTHCHECK FOO x", "FOO", "HEALTHCHECK CMD … or HEALTHCHECK NONE"),
        ("RUN --network=wifi true", "wifi", "one of default, none, host"),
    ],
)
def test_errors_mark_and_hint(text: str, marked: str, hint: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        one(text)
    place = caught.value.where
    assert place is not None and place.marker is not None
    column, length = place.marker
    assert place.text[0][column : column + length] == marked
    assert (place.line, caught.value.hint) == (2, hint)
    assert pickle.loads(pickle.dumps(caught.value)).render() == caught.value.render()


def test_the_whole_range_of_lines_is_shown() -> None:
    with pytest.raises(DockerfileError) as caught:
        one("COPY --nope \\\n  a \\\n  b")
    place = caught.value.where
    assert place is not None
    assert (place.line, place.end_line, len(place.text)) == (2, 4, 3)
    assert str(caught.value) == "dockerfile parse error on line 2: unknown flag: --nope"


def test_syntax_is_kept_and_not_run() -> None:
    assert parse(b"# syntax=evil/frontend\nFROM x\n", "Dockerfile").syntax == "evil/frontend"
