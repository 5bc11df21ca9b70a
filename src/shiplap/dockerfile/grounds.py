"""Where file systems come from: base images, named contexts, nothing (reference 3.1, 3.2)."""

from __future__ import annotations

from shiplap.dockerfile.draft import Draft
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.options import ImageResolver, NamedContext, ResolvedImage
from shiplap.dockerfile.state import Ground, Scene
from shiplap.dockerfile.suggest import nearest
from shiplap.errors import ImageError, Place, ShiplapError
from shiplap.graph.node import About, Node
from shiplap.graph.operations import NO_INPUT, Copy, FileChange, GitSource, HttpSource, ImageSource, LocalSource
from shiplap.oci.config import ImageConfig, empty_config
from shiplap.oci.platform import Platform
from shiplap.oci.reference import Reference, parse_reference

SCRATCH = "scratch"
_WELL_KNOWN = ("alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora")


def stage_reference(name: str) -> Reference:
    """The image that FROM or ``from`` names. Raises Fault ``failed to parse stage name …``."""
    try:
        return parse_reference(name)
    except ImageError as error:
        reason = error.message.partition('": ')[2] or error.message
        raise Fault(
            f'failed to parse stage name "{name[:300]}": {reason}',
            code=error.code,
            hint="stage names are in lower case; images are named [host/]name[:tag][@sha256:…]",
            at=name,
        ) from None


def find_context(scene: Scene, name: str, platform: Platform) -> tuple[str, NamedContext] | None:
    """The named context for a stage or image of this name, with its own name. Raises Fault for an impossible name."""
    contexts = scene.options.contexts
    if name.lower() in (SCRATCH, "context") or (not contexts and _is_plain(name)):
        return None
    try:
        familiar = parse_reference(name, default_tag="").familiar().removesuffix(":latest")
    except ImageError as error:
        reason = error.message.partition('": ')[2] or error.message
        raise Fault(
            f"invalid context name {name}: {reason}",
            code="invalid-context-name",
            hint="name it as images are named: lower case, without spaces",
            at=name,
        ) from None
    for key in (f"{familiar}::{platform}", familiar):
        context = contexts.get(key)
        if context is not None:
            return key, context
    return None


def _is_plain(name: str) -> bool:
    """Whether ``name`` is possible for an image at first sight (64 digits are refused)."""
    return name.isascii() and name.isalnum() and name.islower() and len(name) < 64


class Grounds:
    """Makes grounds; each image is asked for once. ``names`` are those of stages, for suggestions."""

    def __init__(self, scene: Scene, images: ImageResolver, names: list[str]) -> None:
        self._scene = scene
        self._images = images
        self._names = names
        self._resolved: dict[tuple[str, Platform], ResolvedImage] = {}

    def empty(self, platform: Platform) -> Ground:
        """``FROM scratch``."""
        return Ground(None, Draft(empty_config(platform), self._scene.budget), platform)

    def image(self, name: str, asked: Platform | None, place: Place) -> Ground:
        """The image ``name``, or the named context that stands in for it; ``asked`` is ``--platform``."""
        options = self._scene.options
        platform = asked or options.target_platform
        if name == SCRATCH:
            return self.empty(platform)
        reference = stage_reference(name)
        found = find_context(self._scene, str(reference), platform)
        if found is not None:
            ground = self.context(*found, platform, place)
            if ground.base is None:
                ground.draft = Draft(empty_config(platform), self._scene.budget)
            ground.platform = platform
            return ground
        resolved = self._resolve(reference, platform, place, name)
        config = resolved.config
        if asked is None and not options.explicit_platform:
            made = (config.os, config.architecture)
            build = options.build_platform
            if made != (platform.os, platform.architecture) and made == (build.os, build.architecture):
                platform = build
        return self._ground(resolved, platform, place, f"FROM {_full(reference, resolved)}")

    def context(self, name: str, context: NamedContext, platform: Platform, place: Place) -> Ground:
        """A named context. Raises Fault for a kind that is not known, DockerfileError if its image cannot be had."""
        about = About(f"[context {name}] load from client", instruction="FROM", place=place)
        nothing = Draft(ImageConfig(), self._scene.budget)
        if context.kind == "local":
            node = Node(LocalSource(context.value, context.ignore), (), about)
            return Ground(node, nothing, platform, local=True)
        if context.kind == "git":
            from shiplap.dockerfile.giturl import parse_git_url
            from shiplap.dockerfile.remote import git_context

            git = parse_git_url(context.value)
            if git is None:
                raise Fault(
                    f"invalid git context {context.value}",
                    code="invalid-context",
                    hint="give https://host/repository.git#ref:directory",
                    at=name,
                )
            return Ground(Node(git_context(git), (), about), nothing, platform)
        if context.kind == "http":
            return Ground(Node(HttpSource(context.value, "context"), (), about), nothing, platform)
        if context.kind != "image":
            raise Fault(
                f"unsupported context source {context.kind} for {name}",
                code="invalid-context",
                hint="give a directory, docker-image://reference, or a git or http URL",
            )
        value = context.value.removeprefix("docker-image:").removeprefix("//")
        if value == SCRATCH:
            return Ground(None, nothing, platform)
        resolved = self._resolve(stage_reference(value), platform, place, value)
        made = resolved.config.platform if resolved.config.os and resolved.config.architecture else platform
        return self._ground(resolved, made, place, f"[context {name}] {value}")

    def _ground(self, resolved: ResolvedImage, platform: Platform, place: Place, title: str) -> Ground:
        node = None
        if resolved.config.diff_ids:
            operation = ImageSource(_full(resolved.reference, resolved), resolved.digest, str(platform))
            node = Node(operation, (), About(title, instruction="FROM", place=place))
        return Ground(node, Draft(resolved.config, self._scene.budget), platform, resolved)

    def _resolve(self, reference: Reference, platform: Platform, place: Place, typed: str) -> ResolvedImage:
        key = (str(reference), platform)
        if key not in self._resolved:
            try:
                self._resolved[key] = self._images.resolve(reference, platform)
            except ShiplapError as error:
                if error.where is None or error.where.file is None:
                    error.where = place
                match = nearest(typed, [*self._names, *_WELL_KNOWN, *(f"{name}:latest" for name in _WELL_KNOWN)])
                if match:
                    error.hint = f"did you mean {match}?" + (f" Else {error.hint}" if error.hint else "")
                raise
        return self._resolved[key]


def _full(reference: Reference, resolved: ResolvedImage) -> str:
    return str(reference._replace(digest=resolved.digest))


def as_root(ground: Ground, place: Place) -> Ground:
    """``ground`` as a root file system: what is no snapshot (a directory, a repository) is copied into a layer."""
    node = ground.node
    if node is None or not isinstance(node.operation, LocalSource | GitSource | HttpSource):
        return ground
    copy = Copy(0, ("/",), "/", reset_owner=ground.local)
    layer = Node(FileChange((copy,), base=NO_INPUT), (node,), About(node.about.name, instruction="FROM", place=place))
    return Ground(layer, ground.draft, ground.platform, ground.base, ground.layers + 1)
