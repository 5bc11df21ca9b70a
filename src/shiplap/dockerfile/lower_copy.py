"""COPY and ADD: sources, destination, remote sources, ``--link`` (reference 2.5 to 2.7)."""

from __future__ import annotations

import re

from shiplap.dockerfile import instructions
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.giturl import GitUrl, is_http, parse_git_url
from shiplap.dockerfile.gotext import quote, valid
from shiplap.dockerfile.heredoc import file_name
from shiplap.dockerfile.lower_config import step_text
from shiplap.dockerfile.paths import destination, normalize
from shiplap.dockerfile.state import Ground, StageState
from shiplap.dockerfile.words import Lexer
from shiplap.errors import TreeError
from shiplap.graph.node import About, Node
from shiplap.graph.operations import NO_INPUT, Copy, FileAction, FileChange, GitSource, Inline, Merge
from shiplap.trees.patterns import PatternSet, clean

_SYMBOLIC = r"[ugoa]*(?:[-+=][rwxXstugo]*)+(?:,[ugoa]*(?:[-+=][rwxXstugo]*)+)*"
_BODY = Lexer(skip_quotes=True)
_GLOB = r"([*?\[\\])"


class _Plan:
    """The words of one COPY or ADD, expanded."""

    def __init__(self, state: StageState, word: instructions.Copy | instructions.Add) -> None:
        expand = state.expander(word)
        self.word = word
        self.add = isinstance(word, instructions.Add)
        self.chown = expand(word.chown)
        self.chmod = expand(word.chmod)
        self.checksum = expand(word.checksum) if isinstance(word, instructions.Add) else ""
        self.sources = [expand(source) for source in word.sources]
        self.dest = expand(word.dest)
        self.inline = []
        for inline in word.inline:
            content = inline.content
            if inline.expand:
                unmatched: set[str] = set()
                content = _BODY.expand(content, state.env, None, unmatched)
                if unmatched:
                    state.remark_unknown(word, unmatched)
            self.inline.append((inline.name, content))
        self.parents = isinstance(word, instructions.Copy) and word.parents
        self.unpack = word.unpack if isinstance(word, instructions.Add) else None
        self.keep_git_dir = word.keep_git_dir if isinstance(word, instructions.Add) else None


def lower_copy(state: StageState, word: instructions.Copy | instructions.Add, ground: Ground) -> None:
    """Add a COPY or ADD step to the stage; ``ground`` is what local sources are taken from."""
    plan = _Plan(state, word)
    dest = destination(state.cwd, plan.dest)
    _check(plan)
    text = step_text(state, word)
    name = state.title(text)
    # A link's files are laid on nothing; only then are they merged over the stage.
    link = word.link and not plan.chmod
    if link and state.node is not None:
        _check_link_owner(plan.chown)
    below = None if link else state.node
    inputs: list[Node] = [below] if below else []
    about = state.about(name, word)
    actions = _Actions(state, plan, dest, ground, inputs, about).all()
    node = Node(FileChange(tuple(actions), base=0 if below else NO_INPUT), tuple(inputs), about)
    if link and state.node is not None:
        node = state.make(Merge(), (state.node, node), state.numbered("LINK " + text), word)
    state.node = node
    state.layers += 1
    state.draft.record(f"{_created_by(plan)} # buildkit", layer=True)


def _created_by(plan: _Plan) -> str:
    words = ["ADD" if plan.add else "COPY"]
    if plan.parents:
        words.append("--parents")
    if plan.chown:
        words.append(f"--chown={plan.chown}")
    if plan.chmod:
        words.append(f"--chmod={plan.chmod}")
    words += plan.sources
    words += (f"<<{name}" for name, _ in plan.inline)
    words.append(plan.dest)
    return " ".join(words)


def _check(plan: _Plan) -> None:
    _check_mode(plan.chmod)
    if plan.checksum:
        if len(plan.sources) != 1:
            raise Fault(
                "checksum can't be specified for multiple sources",
                code="invalid-checksum",
                hint="one ADD for each source",
            )
        source = plan.sources[0]
        if not is_http(source) and _git(source) is None:
            raise Fault(
                "checksum requires HTTP(S) or Git sources",
                code="invalid-checksum",
                hint="--checksum is for what is fetched: leave it away",
                at=source,
            )
    try:
        PatternSet(plan.word.exclude)
    except TreeError as error:
        raise Fault(error.message, code=error.code, hint=error.hint, at="--exclude") from None


def _check_link_owner(chown: str) -> None:
    """A link is laid on nothing, where no names are known: BuildKit fails too, when it gets there."""
    if any(part and not re.fullmatch("[0-9]+", part) for part in chown.split(":", 1)):
        raise Fault(
            "invalid user index: -1",
            code="link-owner-by-name",
            hint="--link knows no users of the stage: give --chown numbers, or leave --link away",
            at=chown,
        )


def _check_mode(text: str) -> None:
    if not text or (re.fullmatch("[0-7]+", text) and int(text[-64:], 8) <= 0o7777 and len(text) <= 64):
        return
    if text[0].isdigit() and text[0].isascii():
        raise Fault(
            f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777",
            code="invalid-chmod",
            hint="write octal (0755) or symbolic (u=rwX,go=rX)",
            at=text,
        )
    if not re.fullmatch(_SYMBOLIC, text):
        raise Fault(
            "invalid syntax", code="invalid-chmod", hint="write octal (0755) or symbolic (u=rwX,go=rX)", at=text
        )


def _git(source: str) -> GitUrl | None:
    try:
        return parse_git_url(source)
    except Fault:
        return None


class _Actions:
    """The copies of one instruction, in order; neighbours from one input make one action."""

    def __init__(
        self, state: StageState, plan: _Plan, dest: str, ground: Ground, inputs: list[Node], about: About
    ) -> None:
        self._state = state
        self._plan = plan
        self._dest = dest
        self._ground = ground
        self._inputs = inputs
        self._about = about
        self._made: list[Copy] = []

    def all(self) -> list[FileAction]:
        local: list[str] = []
        for source in self._plan.sources:
            git = parse_git_url(source)
            if git is None and not is_http(source):
                local.append(self._local(source))
                continue
            if not self._plan.add:
                what = "a URL" if git is None else "a git ref"
                raise Fault(f"source can't be {what} for COPY", code="remote-source", hint="use ADD", at=source)
            self._flush(local)
            local = []
            if git is not None:
                self._add(Node(self._repository(git), (), self._load("git", git.remote)), ("/",), unpack=False)
            else:
                from shiplap.dockerfile.remote import http_source

                operation = http_source(source, self._plan.checksum)
                name = re.sub(_GLOB, r"\\\1", operation.filename)
                self._add(
                    Node(operation, (), self._load("http", source)), (f"/{name}",), unpack=bool(self._plan.unpack)
                )
        self._flush(local)
        if self._plan.inline:
            self._inline()
        return list(self._made)

    def _load(self, kind: str, source: str) -> About:
        """What is told of fetching ``source``: its own step, without what may be secret in an address."""
        shown = re.sub(r"//[^/?#]*@", "//", source).partition("?")[0].partition("#")[0]
        return About(f"load {kind} source {shown}", instruction="ADD", place=self._about.place)

    def _flush(self, sources: list[str]) -> None:
        if not sources:
            return
        unpack = (None if self._plan.unpack is None else self._plan.unpack) if self._plan.add else False
        self._add(self._ground.node, tuple(sources), unpack=unpack, reset_owner=self._ground.local)

    def _add(
        self, node: Node | None, sources: tuple[str, ...], *, unpack: bool | None, reset_owner: bool = False
    ) -> None:
        number = NO_INPUT
        if node is not None:
            number = next((n for n, known in enumerate(self._inputs) if known is node), len(self._inputs))
            if number == len(self._inputs):
                self._inputs.append(node)
        self._made.append(
            Copy(
                number,
                sources,
                self._dest,
                owner=self._plan.chown,
                mode=self._plan.chmod,
                exclude=self._plan.word.exclude,
                parents=self._plan.parents,
                unpack=unpack,
                reset_owner=reset_owner,
            )
        )

    def _inline(self) -> None:
        files = tuple(
            Inline(file_name(name), content.encode("utf-8", "surrogateescape")) for name, content in self._plan.inline
        )
        self._made.append(
            Copy(
                NO_INPUT,
                (),
                self._dest,
                inline=files,
                owner=self._plan.chown,
                mode=self._plan.chmod,
                exclude=self._plan.word.exclude,
            )
        )

    def _local(self, source: str) -> str:
        self._remark_ignored(source)
        if not self._plan.parents:
            return clean(normalize("/", source, keep_slash=False))
        head, pivot, tail = source.partition("/./")
        if not pivot:
            head, tail = "/", source
        root = clean(normalize("/", head, keep_slash=False))
        pattern = clean(normalize("/", tail, keep_slash=False))[1:]
        return f"{root.rstrip('/')}/./{pattern}"

    def _remark_ignored(self, source: str) -> None:
        scene = self._state.scene
        if self._ground.node is not scene.context or scene.options.context is not None:
            return
        path = clean(valid(source))
        if not scene.ignores(path):
            return
        verb = "Add" if self._plan.add else "Copy"
        text = f"Attempting to {verb} file {quote(path)} that is excluded by .dockerignore"
        self._state.remark("CopyIgnoredFile", text, self._plan.word, at=source)

    def _repository(self, git: GitUrl) -> GitSource:
        from shiplap.dockerfile.remote import git_source

        return git_source(git, keep=self._plan.keep_git_dir, checksum=self._plan.checksum)
