"""SOURCE_DATE_EPOCH: a number of seconds, or a name for a source whose own time it is (reference 5.5).

``context`` is the build context; other names are those of named contexts, or of stages that begin from scratch and hold
nothing but one ADD of a URL or repository. The time of a commit is that of its committer; a file's is Last-Modified, or
else the newest in it, if it is an archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.giturl import is_http, parse_git_url
from shiplap.dockerfile.grounds import SCRATCH, find_context
from shiplap.dockerfile.instructions import Add, Arg, Stage
from shiplap.dockerfile.remote import git_context, git_source, http_source
from shiplap.dockerfile.words import Lexer
from shiplap.errors import UsageError
from shiplap.graph.node import Node
from shiplap.graph.operations import GitSource, HttpSource, LocalSource

if TYPE_CHECKING:
    from shiplap.dockerfile.options import NamedContext
    from shiplap.dockerfile.survey import Survey

NAME = "SOURCE_DATE_EPOCH"
Dated = GitSource | HttpSource | LocalSource
"""What may have a time of its own."""


def resolve(text: str, survey: Survey) -> int | None:
    """The time of the source that ``text`` names, in seconds; None if it has none. Raises DockerfileError, UsageError."""
    options = survey.options
    source = _source(text, survey)
    if source is None or options.moments is None:
        return None
    return options.moments(source)


def _source(text: str, survey: Survey) -> Dated | None:
    options = survey.options
    if text == "context":
        return source_of(survey.scene.context)
    with survey.located(survey.dockerfile.args[-1] if survey.dockerfile.args else survey.dockerfile.stages[0].origin):
        named = find_context(survey.scene, text, options.target_platform)
        if named is not None:
            return context_source(named[1])
    for stage in survey.dockerfile.stages:
        if stage.name == text.lower():
            with survey.located(stage.origin):
                return stage_source(stage, survey.given, survey.args, survey.lexer)
    message = f"invalid {NAME}: {text}"
    hint = "give it as seconds since 1970-01-01, or as context, or the name of a named context or stage"
    if NAME in survey.given:
        raise UsageError(message, code="invalid-epoch", hint=hint)
    arg = next(arg for arg in reversed(survey.dockerfile.args) if any(item.name == NAME for item in arg.items))
    raise survey.source.error(Fault(message, code="invalid-epoch", hint=hint, at=text), arg.line, arg.end_line)


def context_source(context: NamedContext) -> Dated | None:
    """The source that a named context is; None for images and directories, which have no time."""
    if context.kind == "http":
        return HttpSource(context.value, "context")
    git = parse_git_url(context.value) if context.kind == "git" else None
    return git_context(git) if git is not None else None


def source_of(node: Node | None) -> Dated | None:
    """The one source that ``node`` is made of; None if there is not exactly one of a kind that has a time."""
    if node is None:
        return None
    if isinstance(node.operation, GitSource | HttpSource | LocalSource):
        return node.operation
    return source_of(node.inputs[0]) if len(node.inputs) == 1 else None


def stage_source(stage: Stage, given: Mapping[str, str], values: Mapping[str, str], lexer: Lexer) -> Dated:
    """What the only ADD of ``stage`` fetches. Raises Fault for a stage that holds anything else."""
    values = {name: value for name, value in values.items() if name != NAME}
    if lexer.expand(stage.origin.base, values) != SCRATCH:
        raise _unfit("must use FROM scratch")
    found: Dated | None = None
    for word in stage.commands:
        if isinstance(word, Arg):
            for item in word.items:
                value = given.get(item.name)
                if value is None and item.default is not None:
                    value = lexer.expand(item.default, values)
                if value is not None:
                    values[item.name] = value
        elif not isinstance(word, Add):
            keyword = word.keyword.upper()
            raise _unfit(f"does not meet source-only requirements: unsupported {keyword} instruction")
        elif found is not None:
            raise _unfit("must contain exactly one remote ADD")
        else:
            found = _added(word, values, lexer)
    if found is None:
        raise _unfit("must contain exactly one remote ADD")
    return found


def _added(word: Add, values: Mapping[str, str], lexer: Lexer) -> Dated:
    if word.inline or len(word.sources) != 1:
        raise _unfit("must contain exactly one remote ADD source")
    source = lexer.expand(word.sources[0], values)
    checksum = lexer.expand(word.checksum, values)
    if is_http(source):
        return http_source(source, checksum)
    git = parse_git_url(source)
    if git is None:
        raise _unfit("source must be a single HTTP(S) or Git ADD")
    return git_source(git, keep=word.keep_git_dir, checksum=checksum)


def _unfit(why: str) -> Fault:
    return Fault(
        f"{NAME} stage {why}", code="invalid-epoch", hint="FROM scratch AS name, then ADD of one URL, and nothing else"
    )
