"""The library's face: what ``import shiplap`` gives and costs, what build takes, returns and raises."""

from __future__ import annotations

import inspect
import json
import pickle
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

import shiplap
from shiplap import errors
from shiplap.events.facts import BuildFinished, Fact, StepFinished, StepStarted
from shiplap.settings import load
from shiplap.store.store import Store

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ShiplapError)]


def modules_after(code: str) -> set[str]:
    """The modules of a fresh interpreter that ran ``code``."""
    script = f"import sys\n{code}\nprint(chr(10).join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    path.mkdir()
    (path / "Dockerfile").write_text(
        "ARG WHO\nFROM scratch AS files\nARG WHO\nLABEL who=$WHO\nCOPY f /f\nFROM scratch\nCOPY f /g\n"
    )
    (path / "f").write_text("data")
    return path


# -- what it costs


def test_import_shiplap_imports_itself_alone() -> None:
    free = modules_after("import __future__")
    assert modules_after("import shiplap") - free == {"shiplap"}


def test_help_imports_one_module_more() -> None:
    free = modules_after("import __future__")
    shown = modules_after("from shiplap.cli.main import main; main(['--help'])")
    assert shown - free == {"shiplap", "shiplap.cli", "shiplap.cli.main"}


def test_signals_are_heeded_before_anything_is_imported() -> None:
    free = modules_after("import __future__, atexit")
    assert modules_after("from shiplap.cli import early; early.heed()") - free == {
        "shiplap",
        "shiplap.cli",
        "shiplap.cli.early",
    }


def test_asking_for_a_request_loads_no_room() -> None:
    loaded = {name for name in modules_after("import shiplap; shiplap.Request") if name.startswith("shiplap")}
    assert loaded == {"shiplap", "shiplap.errors", "shiplap.api", "shiplap.api.request"}


# -- what is there


def test_dir_is_exact() -> None:
    assert dir(shiplap) == [
        "Output",
        "Request",
        "Result",
        "Secret",
        "ShiplapError",
        "StageResult",
        "__version__",
        "build",
        "enter_user_namespace",
    ]
    for name in dir(shiplap):
        assert getattr(shiplap, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'shiplap' has no attribute 'bulid'"):
        shiplap.bulid  # noqa: B018  the asking is the test


def test_build_stays_a_function_after_use(context: Path, tmp_path: Path) -> None:
    shiplap.build(context, root=tmp_path / "store", environ={})
    assert callable(shiplap.build)


# -- building


def test_builds_to_an_oci_archive(context: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.tar"
    result = shiplap.build(
        context,
        target="files",
        tags=["app:1"],
        build_args={"WHO": "me"},
        output=f"type=oci,dest={out}",
        root=tmp_path / "store",
        environ={},
    )
    with tarfile.open(out) as archive:

        def read(path: str) -> bytes:
            file = archive.extractfile(path)
            assert file is not None
            return file.read()

        index = json.loads(read("index.json"))
        assert [entry["digest"] for entry in index["manifests"]] == [result.digest]
        raw = read("blobs/" + result.digest.replace(":", "/"))
        manifest = json.loads(raw)
        assert manifest["config"]["digest"] == result.config_digest
        config = json.loads(read("blobs/" + result.config_digest.replace(":", "/")))
    assert config["config"]["Labels"] == {"who": "me"}
    assert result.outputs == (str(out),)
    assert result.size == len(raw)
    assert result.names == ("docker.io/library/app:1",)
    assert result.media_type == "application/vnd.oci.image.manifest.v1+json"


def test_the_result_tells_stages_and_steps(context: Path, tmp_path: Path) -> None:
    first = shiplap.build(context, root=tmp_path / "store", environ={})
    assert isinstance(first, shiplap.Result)
    assert [(stage.index, stage.name, stage.needed) for stage in first.stages] == [(0, "files", False), (1, "", True)]
    assert first.steps_run == ("[stage-1 1/1] COPY f /g",)
    assert first.steps_reused == ()
    assert set(first.timings) == {"plan", "solve", "export"}
    assert 0 < sum(first.timings.values()) <= first.seconds
    second = shiplap.build(context, root=tmp_path / "store", environ={})
    assert (second.digest, second.steps_run, second.steps_reused) == (first.digest, (), first.steps_run)


def test_without_an_output_the_store_has_it(context: Path, tmp_path: Path) -> None:
    result = shiplap.build(context, tags=["app"], root=tmp_path / "store", environ={})
    with Store(tmp_path / "store") as store:
        assert store.images.find("app").digest == result.digest
        assert store.images.resolve(result.digest, None).manifest.config.digest == result.config_digest


def test_the_root_comes_from_the_environment_given(context: Path, tmp_path: Path) -> None:
    shiplap.build(context, environ={"SHIPLAP_ROOT": str(tmp_path / "elsewhere")})
    assert (tmp_path / "elsewhere/index.sqlite").exists()
    assert load({"XDG_DATA_HOME": "/data"}, home="/home/u").root == "/data/shiplap"


def test_a_whole_request_can_be_given(context: Path, tmp_path: Path) -> None:
    request = shiplap.Request(
        context=context,
        root=tmp_path / "store",
        dockerfile_data=b"FROM scratch\nCOPY f /h\n",
        outputs=(shiplap.Output("local", str(tmp_path / "out")),),
    )
    result = shiplap.build(request, environ={})
    assert (tmp_path / "out/h").read_text() == "data"
    assert result.digest == ""


def test_events_get_every_fact(context: Path, tmp_path: Path) -> None:
    facts: list[Fact] = []
    result = shiplap.build(context, root=tmp_path / "store", events=facts.append, environ={})
    started = [fact for fact in facts if isinstance(fact, StepStarted)]
    assert (started[0].name, started[0].file, started[0].line) == ("[stage-1 1/1] COPY f /g", "Dockerfile", 7)
    assert {fact.step for fact in facts if isinstance(fact, StepFinished)} == {fact.step for fact in started}
    assert isinstance(facts[-1], BuildFinished)
    assert (facts[-1].digest, facts[-1].steps_run, facts[-1].error) == (result.digest, 1, "")


def test_nothing_is_printed(context: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shiplap.build(context, root=tmp_path / "store", environ={})
    assert capfd.readouterr() == ("", "")


# -- what goes wrong


def test_an_error_has_code_place_and_hint(context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY nothing /\n")
    facts: list[Fact] = []
    with pytest.raises(shiplap.ShiplapError) as caught:
        shiplap.build(context, root=tmp_path / "store", events=facts.append, environ={})
    error = caught.value
    assert error.code == "not-found"
    assert error.where is not None and (error.where.file, error.where.line) == ("Dockerfile", 2)
    assert error.where.text == ("COPY nothing /",)
    assert isinstance(facts[-1], BuildFinished) and facts[-1].error == str(error)
    assert error.render().startswith(f"ERROR: {error} [not-found]\n  --> Dockerfile:2\n  2 | COPY nothing /")
    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_a_misspelt_flag_says_what_was_meant(context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY --form=files f /\n")
    with pytest.raises(errors.DockerfileError) as caught:
        shiplap.build(context, root=tmp_path / "store", environ={})
    assert caught.value.where is not None and caught.value.where.marker == (5, len("--form"))
    assert "--from" in caught.value.render()


def test_cancel_stops_before_it_begins(context: Path, tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(errors.Interrupted) as caught:
        shiplap.build(context, root=tmp_path / "store", cancel=cancel, environ={})
    assert caught.value.exit_status == 130


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickle(kind: type[errors.ShiplapError]) -> None:
    where = errors.Place("Dockerfile", 3, 4, ("RUN x", "y"), (4, 1), "sha256:ab")
    fields: dict[str, object] = {"status": 7} if kind in (errors.StepError, errors.RegistryError) else {}
    if kind is errors.StepError:
        fields |= {"output": ("last words",), "step": "sha256:cd"}
    error = kind("it failed", code="a-code", where=where, hint="try this", **fields)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert again.render() == error.render()
    assert "try: try this" in again.render()


# -- reading requests


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=oci,dest=x.tar", ("oci", "x.tar", {})),
        ("out", ("local", "out", {})),
        ("./a,b", ("local", "./a,b", {})),
        ("-", ("tar", "-", {})),
        ("type=image,name=a:1,push=true", ("image", "", {"name": "a:1", "push": "true"})),
        ('type=image,"name=a,b"', ("image", "", {"name": "a,b"})),
        ("type=registry", ("registry", "", {})),
        ("Type=docker,DEST=-", ("docker", "-", {})),
        ("type=oci", None),
        ("type=local,dest=-", None),
        ("type=zip,dest=x", None),
        ("dest=x.tar", None),
    ],
)
def test_output_parse(text: str, expected: tuple[str, str, dict[str, str]] | None) -> None:
    if expected is None:
        with pytest.raises(errors.UsageError) as caught:
            shiplap.Output.parse(text)
        assert caught.value.code == "invalid-output"
        return
    output = shiplap.Output.parse(text)
    assert (output.type, output.dest, dict(output.attributes)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id=a,src=f", ("a", "f", "")),
        ("id=a,source=f", ("a", "f", "")),
        ("src=dir/f", ("f", "dir/f", "")),
        ("id=a,env=E", ("a", "", "E")),
        ("id=a", ("a", "", "")),
        ("type=file,id=a,src=f", ("a", "f", "")),
        ("type=env,id=a", ("a", "", "a")),
        ("", None),
        ("env=E", None),
        ("id=a,sorce=f", None),
        ("type=vault,id=a", None),
        ("just-a-word", None),
    ],
)
def test_secret_parse(text: str, expected: tuple[str, str, str] | None) -> None:
    if expected is None:
        with pytest.raises(errors.UsageError) as caught:
            shiplap.Secret.parse(text)
        assert caught.value.code == "invalid-secret"
        return
    secret = shiplap.Secret.parse(text)
    assert (secret.id, secret.source, secret.env) == expected


def test_a_secret_does_not_show_its_value() -> None:
    secret = shiplap.Secret("token", value=b"hush")
    assert "hush" not in f"{secret!r} {secret}"
