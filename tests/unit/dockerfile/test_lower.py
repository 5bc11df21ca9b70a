"""Graphs and plans, beyond what the golden cases say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shiplap.dockerfile.lower import Lowering, check, lower
from shiplap.dockerfile.options import LowerOptions, NamedContext, Plan, ResolvedImage
from shiplap.dockerfile.parse import parse
from shiplap.errors import DockerfileError, RegistryError
from shiplap.graph.node import Node, walk
from shiplap.graph.operations import Copy, FileChange, GitSource, HttpSource, LocalSource, Merge, Run
from shiplap.oci.config import ContainerConfig, ImageConfig, RootFS
from shiplap.oci.digest import digest_of
from shiplap.oci.platform import Platform
from shiplap.oci.reference import Reference

AMD64 = Platform("linux", "amd64")
LAYER = digest_of(b"layer")


class Images:
    def __init__(self, **config: Any) -> None:
        self.asked: list[str] = []
        self._config = ContainerConfig(**config)

    def resolve(self, reference: Reference, platform: Platform) -> ResolvedImage:
        self.asked.append(reference.familiar())
        if reference.path.startswith("library/missing"):
            raise RegistryError("not found", code="not-found")
        config = ImageConfig(
            os=platform.os,
            architecture=platform.architecture,
            config=self._config,
            rootfs=RootFS(diff_ids=() if "empty" in reference.path else (LAYER,)),
        )
        return ResolvedImage(reference, digest_of(str(reference).encode()), config)


def make(text: str, images: Images | None = None, **options: Any) -> Plan:
    options = {"target_platform": AMD64, "build_platform": AMD64, **options}
    return lower(parse(text.encode(), "Dockerfile"), LowerOptions(**options), images or Images())


def nodes(plan: Plan) -> list[Node]:
    return list(walk([plan.target] if plan.target else []))


def operation(plan: Plan) -> Any:
    assert plan.target is not None
    return plan.target.operation


def test_only_what_is_reached_is_asked_for() -> None:
    images = Images()
    text = "FROM z AS y\nFROM b AS b\nFROM missing AS c\nRUN x\nFROM a\nCOPY --from=b /x /y\nCOPY --from=d:1 /x /y\n"
    plan = make(text, images)
    assert images.asked == ["b:latest", "a:latest", "d:1"]
    assert [stage.needed for stage in plan.stages] == [False, True, False, True]
    options = LowerOptions(target_platform=AMD64)
    assert [name.familiar() for name, _ in Lowering(parse(text.encode(), "D"), options).base_images()] == images.asked


def test_legacy_order_builds_every_stage_up_to_the_target() -> None:
    text = "FROM a AS a\nRUN one\nFROM b AS b\nRUN two\nFROM c AS c\nRUN three\n"
    plan = make(text, every_stage=True, target="b")
    assert [stage.needed for stage in plan.stages] == [True, True, False]
    assert [node.about.name for node in plan.also] == ["[a 2/2] RUN one"]


def test_equal_steps_of_several_stages_are_one_node() -> None:
    plan = make("FROM a AS x\nRUN make\nFROM a AS y\nRUN make\nFROM scratch\nCOPY --from=x / /\nCOPY --from=y / /\n")
    assert plan.stages[0].node is not None and plan.stages[1].node is not None
    assert plan.stages[0].node.digest == plan.stages[1].node.digest
    assert sum(isinstance(node.operation, Run) for node in nodes(plan)) == 1


def test_the_context_is_one_node_with_its_ignore_file() -> None:
    plan = make("FROM a\nCOPY x /x\nRUN --mount=target=/c true\nADD y /y\n", ignore=("*.log", "!keep.log"))
    sources = [node for node in nodes(plan) if isinstance(node.operation, LocalSource)]
    assert [node.operation for node in sources] == [LocalSource("context", ("*.log", "!keep.log"))]


def test_names_of_steps() -> None:
    plan = make("FROM a AS build\nARG V=1\nRUN make $V\nFROM scratch\nCOPY --from=build /o /\nWORKDIR /w\n")
    names = [node.about.name.partition("@")[0] for node in nodes(plan)]
    assert names == [
        "[build 1/2] FROM docker.io/library/a:latest",
        "[build 2/2] RUN make 1",
        "[stage-1 1/2] COPY --from=build /o /",
        "[stage-1 2/2] WORKDIR /w",
    ]
    single = make("FROM a\nRUN x\n", multi_platform=True, target_platform=Platform("linux", "arm64"))
    assert single.target is not None and single.target.about.name == "[linux/arm64 2/2] RUN x"
    cross = make(
        "FROM --platform=linux/amd64 a\nARG TARGETPLATFORM\nRUN x\n",
        multi_platform=True,
        target_platform=Platform("linux", "arm64"),
    )
    assert cross.target is not None and cross.target.about.name == "[linux/amd64->arm64 2/2] RUN x"


def test_about_knows_stage_place_and_instruction() -> None:
    plan = make("FROM a AS s\n\nrun x \\\n  y\n")
    assert plan.target is not None
    about = plan.target.about
    assert (about.stage, about.instruction, about.no_cache) == ("s", "RUN", False)
    assert about.place is not None
    assert (about.place.line, about.place.end_line, about.place.text) == (3, 4, ("run x \\", "  y"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"no_cache": True}, [True, True]), ({"no_cache_filter": ("B", "zz")}, [False, True]), ({}, [False, False])],
)
def test_no_cache(options: dict[str, Any], expected: list[bool]) -> None:
    plan = make("FROM a AS a\nRUN one\nFROM a AS b\nRUN two\n", every_stage=True, **options)
    assert [stage.node is not None and stage.node.about.no_cache for stage in plan.stages] == expected


def test_run_on_scratch_has_no_root() -> None:
    run = operation(make('FROM scratch\nRUN ["/x"]\n'))
    assert isinstance(run, Run)
    assert (run.rootfs, run.args, run.cwd) == (-1, ("/x",), "/")


def test_run_carries_the_request() -> None:
    run = operation(
        make(
            "FROM a\nUSER u:g\nWORKDIR /w\nRUN x\n",
            extra_hosts=("h=1.2.3.4",),
            shm_size=5,
            ulimits=("nofile=1:2",),
            build_args={"BUILDKIT_SANDBOX_HOSTNAME": "box"},
            network="none",
        )
    )
    assert (run.user, run.cwd, run.extra_hosts, run.shm_size) == ("u:g", "/w", ("h=1.2.3.4",), 5)
    assert (run.ulimits, run.hostname, run.network) == (("nofile=1:2",), "box", "none")


def test_entitlements() -> None:
    for text, name in (("RUN --network=host x", "network.host"), ("RUN --security=insecure x", "security.insecure")):
        with pytest.raises(DockerfileError, match=f"{name} is not allowed") as caught:
            make(f"FROM a\n{text}\n")
        assert caught.value.hint == f"build with --allow {name}"
        assert isinstance(operation(make(f"FROM a\n{text}\n", allow=frozenset((name,)))), Run)
    with pytest.raises(DockerfileError, match=r"network\.host is not allowed"):
        make("FROM a\nRUN x\n", network="host")


def test_copy_inputs() -> None:
    plan = make("FROM a\nCOPY x /x\n")
    assert plan.target is not None
    assert [type(node.operation).__name__ for node in plan.target.inputs] == ["ImageSource", "LocalSource"]
    change = operation(plan)
    assert (change.base, change.actions[0].input, change.actions[0].reset_owner) == (0, 1, True)
    bare = operation(make("FROM scratch\nCOPY x /x\n"))
    assert (bare.base, bare.actions[0].input) == (-1, 0)


def test_link_is_laid_on_nothing_and_merged() -> None:
    plan = make("FROM a\nCOPY --link x /x\n")
    assert plan.target is not None
    lower_node, upper = plan.target.inputs
    assert isinstance(plan.target.operation, Merge)
    assert isinstance(upper.operation, FileChange) and upper.operation.base == -1
    assert lower_node.operation.__class__.__name__ == "ImageSource"
    assert isinstance(operation(make("FROM scratch\nCOPY --link x /x\n")), FileChange)
    assert isinstance(operation(make("FROM a\nCOPY --link --chmod=755 x /x\n")), FileChange)


def test_the_base_is_not_in_the_digest_of_a_link() -> None:
    first, second = (make(f"FROM {name}\nCOPY --link x /x\n").target for name in "ab")
    assert first is not None and second is not None
    assert first.inputs[1].digest == second.inputs[1].digest


def test_add_keeps_the_order_of_mixed_sources() -> None:
    plan = make("FROM a\nADD l1 l2 https://h/f%20g*.txt https://h/r.git#v:s l3 <<E /d/\nx\nE\n")
    assert plan.target is not None
    actions = operation(plan).actions
    kinds = [type(plan.target.inputs[one.input].operation) if one.input >= 0 else None for one in actions]
    assert kinds == [LocalSource, HttpSource, GitSource, LocalSource, None]
    assert [one.sources for one in actions] == [("/l1", "/l2"), (r"/f g\*.txt",), ("/",), ("/l3",), ()]
    assert [one.unpack for one in actions] == [None, False, False, None, False]
    assert plan.target.inputs[2].operation == HttpSource("https://h/f%20g*.txt", "f g*.txt")
    assert plan.target.inputs[3].operation == GitSource("https://h/r.git", "v", "s")


def test_heredoc_names_cannot_leave_their_directory() -> None:
    copy = operation(make("FROM scratch\nCOPY <<../../e /d/\nx\n../../e\n")).actions[0]
    assert [inline.name for inline in copy.inline] == ["e"]
    run = operation(make("FROM a\nRUN <<../../e\n#!x\n../../e\n"))
    assert [inline.name for inline in run.files] == ["e"]


def test_parents_have_a_pivot() -> None:
    copy = operation(make("FROM a\nCOPY --parents d/sub/y ./d/./sub/y **/z /t\n")).actions[0]
    assert copy.sources == ("/./d/sub/y", "/d/./sub/y", "/./**/z")


def test_cache_mounts() -> None:
    text = "FROM a AS s\nFROM a\nRUN --mount=type=cache,target=x,uid=3,from=s --mount=type=cache,target=/y,from=s,source=q x"
    run = operation(make(text + "\n", cache_namespace="ns"))
    first, second = run.mounts
    assert (first.target, first.id, first.input, first.uid, first.mode) == ("/x", "ns/x", -1, 3, 0o755)
    assert (second.id, second.input, second.source, second.mode) == ("ns//y", 0, "/q", None)


def test_a_local_context_as_a_stage_is_a_layer() -> None:
    contexts = {"src": NamedContext("local", "src", ("*.o",))}
    plan = make("FROM missing AS src\nFROM src\nENV A=1\nRUN x\n", contexts=contexts)
    below = nodes(plan)[1]
    assert isinstance(below.operation, FileChange)
    assert below.inputs[0].operation == LocalSource("src", ("*.o",))
    copy = below.operation.actions[0]
    assert isinstance(copy, Copy) and copy.reset_owner
    history = plan.config.history or ()
    assert [entry.empty_layer for entry in history] == [True, False, False]
    assert history[-1].comment == "buildkit.exporter.image.v0"


def test_contexts_may_be_for_one_platform() -> None:
    contexts = {"a::linux/amd64": NamedContext("image", "docker-image://b:2"), "a": NamedContext("image", "c")}
    images = Images()
    make("FROM a\nRUN x\n", images, contexts=contexts)
    assert images.asked == ["b:2"]


def test_a_base_without_layers_is_scratch_with_a_config() -> None:
    plan = make("FROM empty\nCOPY x /\n", Images(env=("A=1",), user="u"))
    assert operation(plan).base == -1
    assert plan.config.config.user == "u"
    assert plan.config.config.env is not None and plan.config.config.env[0] == "A=1"


def test_environment_items_without_a_value_take_nothing_from_here() -> None:
    run = operation(make("FROM a\nRUN x\n", Images(env=("HOME", "PATH=/p", "SECRET"))))
    assert run.env == ("HOME=", "PATH=/p", "SECRET=")


def test_errors_of_the_registry_get_the_line_and_a_hint() -> None:
    with pytest.raises(RegistryError) as caught:
        make("FROM a AS missings\nFROM a\nFROM missing\n")
    assert caught.value.where is not None and caught.value.where.line == 3
    assert caught.value.hint == "did you mean missings?"


def test_epoch_may_be_a_global_argument() -> None:
    assert make("ARG SOURCE_DATE_EPOCH=17\nFROM a\n").epoch == 17
    assert make("ARG SOURCE_DATE_EPOCH=17\nFROM a\n", build_args={"SOURCE_DATE_EPOCH": "18"}).epoch == 18
    assert make("ARG SOURCE_DATE_EPOCH=17\nFROM a\n", epoch=19).epoch == 19
    assert make("FROM a\n").epoch is None


def test_explicit_platform_wins_over_the_base() -> None:
    arm = Platform("linux", "arm", "v7")
    text = "FROM --platform=linux/amd64 a\n"
    assert make(text, target_platform=arm).config.architecture == "amd64"
    config = make(text, target_platform=arm, explicit_platform=True).config
    assert (config.architecture, config.variant) == ("arm", "v7")


def test_a_request_does_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "FROM a AS b\nRUN x\nFROM scratch\nCOPY --from=b / /\n"
    first = make(text)
    monkeypatch.setenv("PATH", "/elsewhere")
    monkeypatch.chdir("/")
    second = make(text)
    assert first.target is not None and second.target is not None
    assert first.target.digest == second.target.digest
    assert msgspec.json.encode(first.config) == msgspec.json.encode(second.config)


def test_check_gives_remarks_and_the_error() -> None:
    dockerfile = parse(b"# check=error=true\nFROM a\nMAINTAINER m\nFROM missing\n", "Dockerfile")
    remarks, error = check(dockerfile, LowerOptions(target_platform=AMD64), Images())
    assert [(remark.rule, remark.where.line) for remark in remarks] == [("MaintainerDeprecated", 3)]
    assert isinstance(error, RegistryError)
    assert remarks[0].url == "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/"


def test_bytes_that_are_no_utf8() -> None:
    text = b'FROM a\nRUN echo \xff\nLABEL l=\xff\nCMD ["\xff"]\n'
    plan = lower(parse(text, "D"), LowerOptions(target_platform=AMD64), Images())
    assert operation(plan).args[2] == "echo \udcff"
    assert plan.config.config.labels == {"l": "\ufffd"}
    assert plan.config.config.cmd == ("\ufffd",)
