"""What the environment says, as one frozen value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from shiplap.errors import UsageError
from shiplap.settings.boolean import parse_bool
from shiplap.settings.proxies import Proxies

if TYPE_CHECKING:
    from shiplap.settings.engine import Engine
    from shiplap.settings.network import Credential, Network

_ENGINE = (
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "CONTAINER_HOST"),
    "XDG_RUNTIME_DIR",
)
_GIT = ("HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "SUDO_UID")
PROGRESS_MODES = ("auto", "none", "plain", "quiet", "rawjson", "tty")


class Versions(NamedTuple):
    """What is told of the commit that a build context has checked out, as buildx's variables have it.

    ``told`` (BUILDX_GIT_INFO): in provenance; ``labels`` (BUILDX_GIT_LABELS): in labels of the image; ``dirty``
    (BUILDX_GIT_CHECK_DIRTY): whether anything was changed since. ``environment``: where git finds the user's configuration.
    """

    told: bool = True
    labels: bool = False
    dirty: bool = False
    environment: tuple[tuple[str, str], ...] = ()


class Settings(NamedTuple):
    """Where things are and how to behave. Only ``proxies`` may hold a secret, and does not show it.

    ``docker_buildkit`` is None if DOCKER_BUILDKIT is not set; ``source_date_epoch`` is in seconds; ``default_platform``
    is the text of DOCKER_DEFAULT_PLATFORM. ``auth_files`` and ``registries_files`` are in order of preference and of
    reading, and need not exist. ``login_file`` is where a login is written.
    """

    root: str
    docker_config_dir: str
    auth_files: tuple[str, ...]
    login_file: str
    registries_files: tuple[str, ...]
    registries_file_required: bool
    certificate_dirs: tuple[str, ...]
    progress: str
    color: bool
    docker_buildkit: bool | None
    default_platform: str
    source_date_epoch: int | None
    proxies: Proxies
    temporary: str
    helper_path: str
    terminal: str = ""
    """TERM: what kind of terminal this is."""
    ssh_agent: str = ""
    """SSH_AUTH_SOCK: the socket of the user's agent."""
    traceback: bool = False
    """SHIPLAP_TRACEBACK: show where in shiplap a fault of shiplap is."""
    log_builds: int = 100
    """SHIPLAP_LOG_BUILDS: of how many builds the logs are kept; 0: none are written."""
    log_size: int = 256 << 20
    """SHIPLAP_LOG_SIZE: how many bytes all logs may take; one build's may take a quarter."""
    snapshots: str = "auto"
    """SHIPLAP_SNAPSHOTS: auto, overlay, or copy: how a step gets its root."""
    output_clip: int = 2 << 20
    """BUILDKIT_STEP_LOG_MAX_SIZE: bytes of a step's output that plain progress shows; -1: all."""
    max_used_space: int = 0
    """SHIPLAP_MAX_USED_SPACE: bytes that the store may take; 0: no limit."""
    engine: tuple[tuple[str, str], ...] = ()
    """What DOCKER_HOST, DOCKER_CONTEXT and the like say; see ``engines``."""
    metadata_provenance: str = "min"
    """BUILDX_METADATA_PROVENANCE: how much of it ``--metadata-file`` holds: ``min``, ``max``, or nothing at all."""

    versions: Versions = Versions()
    """BUILDX_GIT_INFO, BUILDX_GIT_LABELS, BUILDX_GIT_CHECK_DIRTY."""

    @property
    def logs(self) -> str:
        """The directory of the logs."""
        return os.path.join(self.root, "logs")

    def network(self) -> Network:
        """How registries are reached; reads registries.conf now, credentials only when one is asked for."""
        from shiplap.settings.credentials import AuthFiles
        from shiplap.settings.network import Network
        from shiplap.settings.registries import read_registries

        return Network(
            rules=read_registries(self.registries_files, required=self.registries_file_required),
            proxies=self.proxies,
            certificate_dirs=self.certificate_dirs,
            credentials=AuthFiles(self.auth_files, self.helper_path).find,
        )

    def web(self) -> Network:
        """How anything but a registry is reached: nobody's credentials are sent there."""
        from shiplap.settings.network import Network

        return Network(proxies=self.proxies, certificate_dirs=self.certificate_dirs)

    def engines(self) -> list[Engine]:
        """Where a running Docker or Podman may be, the likeliest first; reads docker's contexts now."""
        from shiplap.settings.engine import engine_settings, engines

        return engines(engine_settings(dict(self.engine)), self.docker_config_dir)

    def store_login(self, host: str, credential: Credential) -> None:
        """Remember a login, in docker's config.json or the helper it names (in REGISTRY_AUTH_FILE if that is set)."""
        from shiplap.settings.credentials import store_login

        store_login(self.login_file, host, credential, self.helper_path)

    def erase_login(self, host: str) -> bool:
        """Forget a login; False if there was none."""
        from shiplap.settings.credentials import erase_login

        return erase_login(self.login_file, host, self.helper_path)

    def build_proxies(self, host: str = "default") -> dict[str, str]:
        """Proxy build arguments from docker's config.json (``proxies``), in upper and lower case as docker does."""
        from shiplap.settings.documents import read_json

        path = os.path.join(self.docker_config_dir, "config.json")
        sections = read_json(path).get("proxies")
        section = (sections.get(host) or sections.get("default")) if isinstance(sections, dict) else None
        if not isinstance(section, dict):
            return {}
        found: dict[str, str] = {}
        for key in ("httpProxy", "httpsProxy", "ftpProxy", "noProxy", "allProxy"):
            value = section.get(key)
            if isinstance(value, str) and value:
                name = key.removesuffix("Proxy").upper() + "_PROXY"
                found[name] = found[name.lower()] = value
        return found


def load(
    environ: Mapping[str, str], *, root: str | None = None, home: str | None = None, etc: str = "/etc"
) -> Settings:
    """Read ``environ``; ``root`` is the value of ``--root``, ``home`` overrides HOME, system files are in ``etc``.

    Raises UsageError for a value that makes no sense. Opens no file.
    """
    home = home or environ.get("HOME") or _home_of_user()
    config = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    data = environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    docker = os.path.abspath(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"))
    auth_file = environ.get("REGISTRY_AUTH_FILE")
    own_registries = environ.get("CONTAINERS_REGISTRIES_CONF")
    return Settings(
        root=os.path.abspath(root or environ.get("SHIPLAP_ROOT") or os.path.join(data, "shiplap")),
        docker_config_dir=docker,
        auth_files=(auth_file,) if auth_file else tuple(_auth_files(environ, config, docker)),
        login_file=auth_file or os.path.join(docker, "config.json"),
        registries_files=tuple(_registries_files(own_registries, config, etc)),
        registries_file_required=bool(own_registries),
        certificate_dirs=(
            os.path.join(config, "containers", "certs.d"),
            os.path.join(etc, "containers", "certs.d"),
            os.path.join(etc, "docker", "certs.d"),
        ),
        progress=_progress(environ.get("BUILDKIT_PROGRESS", "")),
        color=not environ.get("NO_COLOR"),
        docker_buildkit=_boolean("DOCKER_BUILDKIT", environ.get("DOCKER_BUILDKIT", "")),
        default_platform=environ.get("DOCKER_DEFAULT_PLATFORM", ""),
        source_date_epoch=_epoch(environ.get("SOURCE_DATE_EPOCH", "")),
        proxies=_proxies(environ),
        temporary=environ.get("TMPDIR") or "/tmp",
        helper_path=environ.get("PATH") or os.defpath,
        terminal=environ.get("TERM", ""),
        ssh_agent=environ.get("SSH_AUTH_SOCK", ""),
        traceback=bool(environ.get("SHIPLAP_TRACEBACK")),
        log_builds=_number("SHIPLAP_LOG_BUILDS", environ, 100),
        log_size=_size("SHIPLAP_LOG_SIZE", environ, 256 << 20),
        snapshots=_snapshots(environ.get("SHIPLAP_SNAPSHOTS", "")),
        output_clip=_clip(environ.get("BUILDKIT_STEP_LOG_MAX_SIZE", "")),
        max_used_space=_size("SHIPLAP_MAX_USED_SPACE", environ, 0),
        engine=tuple((name, environ[name]) for name in _ENGINE if environ.get(name)),
        metadata_provenance=_metadata(environ.get("BUILDX_METADATA_PROVENANCE", "")),
        versions=_versions(environ),
    )


def _auth_files(environ: Mapping[str, str], config: str, docker: str) -> list[str]:
    runtime = environ.get("XDG_RUNTIME_DIR")
    files = [os.path.join(runtime, "containers", "auth.json")] if runtime else []
    return [*files, os.path.join(config, "containers", "auth.json"), os.path.join(docker, "config.json")]


def _registries_files(own: str | None, config: str, etc: str) -> list[str]:
    # As containers/image: one main file, the user's before the system's; drop-ins of both add to it, the user's last.
    mine, system = os.path.join(config, "containers"), os.path.join(etc, "containers")
    if own:
        main = own
    else:
        main = os.path.join(mine, "registries.conf")
        if not os.path.exists(main):
            main = os.path.join(system, "registries.conf")
    return [main, os.path.join(system, "registries.conf.d"), os.path.join(mine, "registries.conf.d")]


def _proxies(environ: Mapping[str, str]) -> Proxies:
    def value(name: str) -> str:
        # HTTP_PROXY in upper case is ignored under CGI, where a request header can set it (httpoxy).
        upper = "" if name == "http_proxy" and "REQUEST_METHOD" in environ else environ.get(name.upper(), "")
        return environ.get(name) or upper

    return Proxies(value("http_proxy"), value("https_proxy"), value("no_proxy"), value("all_proxy"))


def _progress(text: str) -> str:
    if text and text not in PROGRESS_MODES:
        raise UsageError(
            f"BUILDKIT_PROGRESS={text[:40]!r} is not a progress mode",
            code="invalid-progress",
            hint="use one of " + ", ".join(PROGRESS_MODES),
        )
    return text or "auto"


def _metadata(text: str) -> str:
    # As buildx: what it does not know counts as unset.
    if text == "disabled" or parse_bool(text) is False:
        return ""
    return text if text == "max" else "min"


def _versions(environ: Mapping[str, str]) -> Versions:
    # As buildx: what is neither yes nor no counts as unset; "full" is how labels were asked for once.
    def asked(name: str, default: bool) -> bool:
        truth = parse_bool(environ.get(f"BUILDX_GIT_{name}", ""))
        return default if truth is None else truth

    labels = environ.get("BUILDX_GIT_LABELS") == "full" or asked("LABELS", False)
    given = tuple((name, environ[name]) for name in _GIT if name in environ)
    return Versions(asked("INFO", True), labels, asked("CHECK_DIRTY", False), given)


def _snapshots(text: str) -> str:
    if text not in ("", "auto", "overlay", "copy"):
        raise UsageError(
            f"SHIPLAP_SNAPSHOTS={text[:40]!r} is no way to make snapshots",
            code="invalid-snapshots",
            hint="set it to auto, overlay or copy",
        )
    return text or "auto"


def _boolean(name: str, text: str) -> bool | None:
    truth = parse_bool(text)
    if truth is not None or not text:
        return truth
    raise UsageError(f"{name}={text[:40]!r} is not a boolean", code="invalid-boolean", hint=f"set {name} to 1 or 0")


def _number(name: str, environ: Mapping[str, str], default: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise UsageError(f"{name}={text[:40]!r} is not a number", code="invalid-number", hint=f"set it to {default}")
    return int(text)


def _size(name: str, environ: Mapping[str, str], default: int) -> int:
    """Bytes, or so many of k, m or g (powers of two)."""
    text = environ.get(name, "").lower().removesuffix("b").removesuffix("i")
    shift = {"k": 10, "m": 20, "g": 30}.get(text[-1:], 0)
    digits = text[:-1] if shift else text
    if not text:
        return default
    if not (digits.isascii() and digits.isdigit() and len(digits) < 12):
        raise UsageError(
            f"{name}={environ[name][:40]!r} is not a size", code="invalid-number", hint="write 64m, 1g or bytes"
        )
    return int(digits) << shift


def _clip(text: str) -> int:
    # As BuildKit reads it: what is no number changes nothing.
    try:
        return int(text)
    except ValueError:
        return 2 << 20


def _epoch(text: str) -> int | None:
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise UsageError(
            f"SOURCE_DATE_EPOCH={text[:40]!r} is not a number of seconds",
            code="invalid-epoch",
            hint="set it to seconds since 1970, for example $(git log -1 --format=%ct)",
        )
    return int(text)


def _home_of_user() -> str:
    # No HOME (cron, a bare container): the password file, and a root directory where even that knows nothing.
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir or "/"
    except KeyError:
        return "/"
