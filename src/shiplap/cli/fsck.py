"""``shiplap fsck``."""

from __future__ import annotations

import os

from shiplap.cli.parsing import Parser, settings_of

_EPILOG = """Exit status: 0 if nothing is wrong, or all of it was repaired; 1 if something is. What a killed shiplap
left behind is no damage: it is cleared up, as any build would do.
"""


def run(name: str, argv: list[str]) -> int:
    """Check the store."""
    p = Parser("fsck", "Read all that the store holds and say what is damaged, missing or left over.", epilog=_EPILOG)
    p.add_argument("--repair", action="store_true", help="drop what is broken: the next build or pull makes it again")
    p.add_argument("--format", default="", choices=("", "json"), help="json: the whole report as one object")
    options = p.parse_args(argv)
    settings = settings_of(options)
    from shiplap.api.isolation import enter_user_namespace

    if os.geteuid() != 0:
        enter_user_namespace()
    from shiplap.api.space import fsck
    from shiplap.events.plain import size_text

    report = fsck(settings, repair=options.repair)
    if options.format == "json":
        import msgspec

        print(
            msgspec.json.encode(
                {"root": settings.root, "clean": report.clean, **msgspec.structs.asdict(report)}
            ).decode()
        )
        return 0 if report.clean else 1
    for finding in report.findings:
        done = "done" if finding.repaired else "to do"
        print(f"{finding.text} [{finding.code}]\n  {done}: {finding.remedy}")
    if report.cleared:
        print(f"cleared up {report.cleared} things that killed processes had left")
    print(
        f"looked at {report.blobs} blobs ({size_text(report.bytes)}), {report.snapshots} snapshots ({report.compared} of them"
        f" file by file) and {report.images} names in {settings.root}: "
        + (_verdict(len(report.findings), sum(1 for finding in report.findings if not finding.repaired)))
    )
    if not report.clean and not options.repair:
        print("try: shiplap fsck --repair")
    return 0 if report.clean else 1


def _verdict(found: int, left: int) -> str:
    if not found:
        return "all sound"
    if not left:
        return f"{found} findings, all repaired"
    return f"{found} findings" if left == found else f"{found} findings, {left} of them not repaired"
