"""``shiplap logs``: everything that steps wrote, kept while they write it, bounded, and without secrets."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

from kit import Shiplap

DOCKERFILE = b"""FROM busybox AS one
RUN echo first; echo second >&2; printf '\\033[31mred\\033[0m\\n'
FROM busybox AS two
RUN echo from two > /x; echo other
FROM one
COPY --from=two /x /x
"""


def test_the_last_build_is_shown(shiplap: Shiplap) -> None:
    shiplap.run("build", "-q", "-t", "it", "-", stdin=DOCKERFILE)
    text = shiplap.run("logs").stdout
    assert "[one 2/2] RUN echo first" in text and " second\n" in text and "\x1b" not in text
    assert " red\n" in text and " other\n" in text


def test_one_step_comes_as_it_was_written(shiplap: Shiplap) -> None:
    shiplap.run("build", "-q", "-", stdin=DOCKERFILE)
    number = next(
        line.split()[0][1:] for line in shiplap.run("logs").stdout.splitlines() if "[one 2/2] RUN echo first" in line
    )
    lines = sorted(shiplap.run("logs", "--step", number).stdout.splitlines())
    assert lines == ["\x1b[31mred\x1b[0m", "first", "second"]
    missing = shiplap.run("logs", "--step", "99", check=False)
    assert (missing.returncode, "[no-such-step]" in missing.stderr) == (2, True)


def test_one_stage_and_all_facts(shiplap: Shiplap) -> None:
    shiplap.run("build", "-q", "-", stdin=DOCKERFILE)
    two = shiplap.run("logs", "--stage", "two").stdout
    assert "other" in two and "first" not in two
    facts = [json.loads(line) for line in shiplap.run("logs", "--format", "json").stdout.splitlines()]
    assert (facts[0]["type"], facts[-1]["type"]) == ("build-started", "build-finished")
    assert {fact["stream"] for fact in facts if fact["type"] == "step-output"} == {1, 2}
    wrong = shiplap.run("logs", "--stage", "three", check=False)
    assert "no stage 'three'" in wrong.stderr and "one, two" in wrong.stderr


def test_builds_are_listed_newest_first_and_asked_for_by_name(shiplap: Shiplap) -> None:
    assert "[no-logs]" in shiplap.run("logs", check=False).stderr
    shiplap.run("build", "-q", "-t", "it", "-", stdin=DOCKERFILE)
    shiplap.run("build", "-q", "-", stdin=b"FROM busybox\nRUN echo wrong; false\n", check=False)
    newest, oldest = [line.split() for line in shiplap.run("logs", "--list").stdout.splitlines()[1:]]
    assert (newest[4], oldest[4]) == ("failed", "done")
    assert "first" in shiplap.run("logs", oldest[0]).stdout
    assert "first" in shiplap.run("logs", oldest[0][:4]).stdout
    assert "wrong" in shiplap.run("logs").stdout


def test_a_failure_names_the_line_that_shows_its_output(shiplap: Shiplap, tmp_path: Path) -> None:
    failed = shiplap.run("build", "-", stdin=b"FROM busybox\nRUN seq 100; false\n", check=False).stderr
    hint = failed.rstrip().rpartition("\n")[2].split()
    assert hint[:3] == ["try:", "shiplap", "logs"]
    assert shiplap.run(*hint[2:6]).stdout == "".join(f"{n}\n" for n in range(1, 101))
    # The number is the one that plain progress shows.
    assert f"\n#{hint[5]} " in failed and f"#{hint[5]} ERROR" in failed
    other = f"{tmp_path}/another store"
    failed = shiplap.run("build", "--root", other, "-", stdin=b"FROM busybox\nRUN false\n", check=False).stderr
    assert f"shiplap --root '{other}' logs " in failed


def test_a_build_that_runs_can_be_followed(shiplap: Shiplap) -> None:
    build = shiplap.start("build", "-q", "-", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert build.stdin is not None
    build.stdin.write(b"FROM busybox\nRUN for i in 1 2 3 4; do echo tick $i; sleep 0.5; done\n")
    build.stdin.close()
    while "tick 1" not in shiplap.run("logs", check=False).stdout:
        assert build.poll() is None
        time.sleep(0.05)
    assert shiplap.run("logs", "--list").stdout.splitlines()[1].split()[3] == "running"
    followed = shiplap.run("logs", "--follow").stdout
    assert "tick 4" in followed and followed.rstrip().splitlines()[-1].startswith("#")
    assert build.wait(5) == 0


def test_what_plain_progress_clips_the_log_has(shiplap: Shiplap) -> None:
    dockerfile = b"FROM busybox\nRUN yes 0123456789abcdef0123456789abcde | head -n 3000; echo end\n"
    plain = shiplap.run("build", "-", stdin=dockerfile, BUILDKIT_STEP_LOG_MAX_SIZE="50000").stderr
    assert "[output clipped, log limit 50.00kB reached" in plain
    assert 45_000 < len(plain) < 100_000
    assert re.search(r"^#\d+ [\d.]+ end$", plain, re.MULTILINE) is None
    assert shiplap.run("logs").stdout.count(" 0123456789abcdef0123456789abcde\n") == 3000
    whole = shiplap.run("build", "--no-cache", "-", stdin=dockerfile, BUILDKIT_STEP_LOG_MAX_SIZE="-1").stderr
    assert whole.count(" 0123456789abcdef0123456789abcde\n") == 3000


def test_logs_are_bounded(shiplap: Shiplap) -> None:
    for number in range(4):
        shiplap.run("build", "-q", "-", stdin=b"FROM busybox\nRUN echo %d\n" % number, SHIPLAP_LOG_BUILDS="2")
    assert len(shiplap.run("logs", "--list").stdout.splitlines()) == 3
    noisy = b"FROM busybox\nRUN yes 0123456789abcdef | head -c 1000000\n"
    shiplap.run("build", "-q", "-", stdin=noisy, SHIPLAP_LOG_SIZE="400k")
    assert sum(path.stat().st_size for path in (shiplap.root / "logs").iterdir()) < 400 << 10
    assert "the log of this build is full" in shiplap.run("logs").stdout
    shiplap.run("build", "-q", "-", stdin=b"FROM busybox\nRUN echo none\n", SHIPLAP_LOG_BUILDS="0")
    assert "none" not in shiplap.run("logs").stdout


def test_secrets_are_not_in_the_logs(shiplap: Shiplap) -> None:
    canary = "s3cr3t-canary-99"
    dockerfile = (
        b"FROM busybox\nRUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s cat /run/secrets/s | wc -c; false\n"
    )
    shiplap.run("build", "--secret", "id=s,env=TOKEN", "-", stdin=dockerfile, TOKEN=canary, check=False)
    shiplap.run("build", f"https://user:{canary}@127.0.0.1:1/x.git?sig={canary}", check=False)
    for path in (shiplap.root / "logs").iterdir():
        assert canary.encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
    assert "16" in shiplap.run("logs", shiplap.run("logs", "--list").stdout.splitlines()[-1].split()[0]).stdout


def test_an_ordinary_user_reads_the_logs_of_an_ordinary_user(rootless: Shiplap) -> None:
    rootless.run("build", "-q", "-", stdin=DOCKERFILE)
    assert "second" in rootless.run("logs").stdout
