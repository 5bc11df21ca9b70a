"""Remarks on a Dockerfile that works but might not do what was meant: BuildKit's build checks, rule by rule.

Which are made is set by ``# check=``, by the build argument ``BUILDKIT_DOCKERFILE_CHECK``, and by a comment
``# check=skip=Rule`` right above one instruction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from shiplap.dockerfile.directives import Directives
from shiplap.dockerfile.fault import Fault, Source
from shiplap.dockerfile.gotext import quote
from shiplap.dockerfile.instructions import Arg, Dockerfile, Stage
from shiplap.errors import Place
from shiplap.settings.boolean import parse_bool

RULES: Mapping[str, str] = {
    "StageNameCasing": "Stage names should be lowercase",
    "FromAsCasing": "The 'as' keyword should match the case of the 'from' keyword",
    "NoEmptyContinuation": "Empty continuation lines will become errors in a future release",
    "ConsistentInstructionCasing": (
        "All commands within the Dockerfile should use the same casing (either upper or lower)"
    ),
    "DuplicateStageName": "Stage names should be unique",
    "ReservedStageName": "Reserved words should not be used as stage names",
    "JSONArgsRecommended": (
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
    ),
    "MaintainerDeprecated": ("The MAINTAINER instruction is deprecated, use a label instead to define an image author"),
    "UndefinedArgInFrom": "FROM command must use declared ARGs",
    "UndefinedVar": "Variables should be defined before their use",
    "WorkdirRelativePath": (
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base"
        " image changes"
    ),
    "MultipleInstructionsDisallowed": ("Multiple instructions of the same type should not be used in the same stage"),
    "LegacyKeyValueFormat": "Legacy key/value format with whitespace separator should not be used",
    "InvalidBaseImagePlatform": "Base image platform does not match expected target platform",
    "RedundantTargetPlatform": (
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
    ),
    "SecretsUsedInArgOrEnv": "Sensitive data should not be used in the ARG or ENV commands",
    "InvalidDefaultArgInFrom": "Default value for global ARG results in an empty or invalid base image name",
    "FromPlatformFlagConstDisallowed": "FROM --platform flag should not use a constant value",
    "CopyIgnoredFile": "Attempting to Copy file that is excluded by .dockerignore",
    "InvalidDefinitionDescription": (
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is"
        " not intended to be a description comment, add an empty line or comment between the instruction and the comment."
    ),
    "ExposeProtoCasing": "Protocol in EXPOSE instruction should be lowercase",
    "ExposeInvalidFormat": (
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a"
        " future release"
    ),
}
_EXPERIMENTAL = frozenset(("InvalidDefinitionDescription",))
_WITHOUT_PAGE = frozenset(("InvalidBaseImagePlatform",))
_PAGES = "https://docs.docker.com/go/dockerfile/rule/"


class Remark(msgspec.Struct, frozen=True):
    """One finding: the rule's name, what it says here, and where."""

    rule: str
    message: str
    where: Place

    @property
    def description(self) -> str:
        return RULES[self.rule]

    @property
    def url(self) -> str:
        if self.rule in _WITHOUT_PAGE:
            return ""
        slug = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", self.rule).lower()
        return f"{_PAGES}{slug}/"


class CheckConfig(msgspec.Struct, frozen=True):
    """``skip=A,B;experimental=all;error=true``."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def merged(self, other: CheckConfig) -> CheckConfig:
        return CheckConfig(self.skip | other.skip, self.experimental | other.experimental, self.error)

    def wants(self, rule: str) -> bool:
        if rule in _EXPERIMENTAL:
            return "all" in self.experimental or rule in self.experimental
        return "all" not in self.skip and rule not in self.skip


def parse_check(text: str) -> CheckConfig:
    """Read check settings. Raises Fault ``invalid check option …``."""
    config = CheckConfig()
    text = text.strip()
    for part in text.split(";", 2) if text else ():
        key, equals, value = part.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or key not in ("skip", "experimental", "error"):
            raise Fault(f"invalid check option {quote(key if equals else part)}", code="invalid-check", at=part)
        if key == "error":
            truth = parse_bool(value)
            if truth is None:
                raise Fault(
                    f"failed to parse check option {quote(part)}: strconv.ParseBool: parsing {quote(value)}:"
                    " invalid syntax",
                    code="invalid-check",
                    at=part,
                )
            config = msgspec.structs.replace(config, error=truth)
            continue
        names = frozenset(name.strip() for name in value.split(","))
        added = CheckConfig(skip=names) if key == "skip" else CheckConfig(experimental=names)
        config = config.merged(added)
    return config


class Checks:
    """Collects remarks, as far as they are wanted, each once."""

    def __init__(self, source: Source, config: CheckConfig) -> None:
        self.source = source
        self.config = config
        self.remarks: list[Remark] = []
        self._seen: set[tuple[str, str, int]] = set()

    def add(
        self, rule: str, message: str, line: int, end_line: int, comments: Sequence[str] = (), at: str = ""
    ) -> None:
        if not self._config(comments).wants(rule):
            return
        key = (rule, message, line)
        if key not in self._seen:
            self._seen.add(key)
            self.remarks.append(Remark(rule, message, self.source.place(line, end_line, at)))

    def _config(self, comments: Sequence[str]) -> CheckConfig:
        for comment in comments:
            if not comment.lower().startswith("check"):
                continue
            directives = Directives("")
            directives.read(comment, 1)
            if "check" in directives.found:
                try:
                    return self.config.merged(parse_check(directives.found["check"].partition(" ")[0]))
                except Fault:
                    return self.config
        return self.config

    def result(self) -> tuple[Remark, ...]:
        """The remarks by line. Raises Fault if ``error=true`` and there are any."""
        if self.config.error and self.remarks:
            rules = ", ".join(sorted({remark.rule for remark in self.remarks}))
            raise Fault(
                f"lint violation found for rules: {rules}",
                code="check-failed",
                hint="mend them, or take error=true out of the check directive",
            )
        return tuple(sorted(self.remarks, key=lambda remark: remark.where.line or 0))


def check_text(checks: Checks, dockerfile: Dockerfile) -> None:
    """The rules that need nothing but the text: names, casing, deprecated instructions."""
    for line in dockerfile.empty_continuations:
        checks.add("NoEmptyContinuation", "Empty continuation line", line, line)
    stages = dockerfile.stages
    words = [word for stage in stages for word in (stage.origin, *stage.commands)]
    lower = sum(word.keyword == word.keyword.lower() for word in words)
    upper = sum(word.keyword == word.keyword.upper() for word in words)
    wanted = "lowercase" if lower > upper else "uppercase"
    names: set[str] = set()
    for stage in stages:
        _check_from(checks, stage, names)
        for word in stage.commands:
            if word.keyword.lower() == "maintainer":
                text = "Maintainer instruction is deprecated in favor of using label"
                checks.add("MaintainerDeprecated", text, word.line, word.end_line, word.comments)
    for arg in (*dockerfile.args, *(word for stage in stages for word in stage.commands)):
        if isinstance(arg, Arg):
            declared = [item.name for item in arg.items]
            check_description(checks, "ARG", declared, arg.line, arg.end_line, arg.comments)
    for stage in stages:
        for word in (stage.origin, *stage.commands):
            right = word.keyword.lower() if lower > upper else word.keyword.upper()
            if word.keyword != right:
                text = f"Command '{word.keyword}' should match the case of the command majority ({wanted})"
                checks.add(
                    "ConsistentInstructionCasing", text, word.line, word.end_line, word.comments, at=word.keyword
                )


def check_description(
    checks: Checks, keyword: str, names: Sequence[str], line: int, end_line: int, comments: Sequence[str]
) -> None:
    """InvalidDefinitionDescription: the comment above FROM … AS name or ARG name has to begin with the name."""
    if not comments or not names or comments[-1].split(" ")[0] in names:
        return
    example = names[0] if len(names) == 1 else "<arg_key>"
    text = f"Comment for {keyword} should follow the format: `# {example} <description>`"
    checks.add("InvalidDefinitionDescription", text, line, end_line, comments)


def _check_from(checks: Checks, stage: Stage, names: set[str]) -> None:
    origin = stage.origin
    where = (origin.line, origin.end_line, origin.comments)
    if origin.name_typed != origin.name:
        checks.add(
            "StageNameCasing", f"Stage name '{origin.name_typed}' should be lowercase", *where, origin.name_typed
        )
    keyword, as_word = origin.keyword, origin.as_typed
    if as_word and (
        (keyword == keyword.lower() and as_word != as_word.lower())
        or (keyword == keyword.upper() and as_word != as_word.upper())
    ):
        checks.add("FromAsCasing", f"'{as_word}' and '{keyword}' keywords' casing do not match", *where, as_word)
    if not origin.name:
        return
    check_description(checks, "FROM", [origin.name], origin.line, origin.end_line, origin.comments)
    if origin.name in ("context", "scratch"):
        text = f"Stage name should not use the same name as reserved stage {quote(origin.name)}"
        checks.add("ReservedStageName", text, origin.line, origin.end_line)
    if origin.name in names:
        text = f"Duplicate stage name {quote(origin.name)}, stage names should be unique"
        checks.add("DuplicateStageName", text, origin.line, origin.end_line)
    names.add(origin.name)


_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_HARMLESS = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """True if a variable of this name is likely to hold a secret."""
    return _SECRET.search(name) is not None and _HARMLESS.search(name) is None
