"""Reads what probe.sh printed; what depends on the moment is put in words."""

from __future__ import annotations

import os

import calls


def parsed(text: str) -> dict[str, str]:
    """Questions and answers. To be called on the machine where the step ran: namespaces are compared with our own."""
    rows = (line.partition("|") for line in text.splitlines() if "|" in line)
    facts = {name: " ".join(value.split()) for name, _, value in rows}
    for name, value in list(facts.items()):
        if name.startswith("ns."):
            path = f"/proc/self/ns/{name.removeprefix('ns.')}"
            facts[name] = "absent" if not value else "the machine's" if value == os.readlink(path) else "own"
    return {**calls.facts(facts.pop("calls")), **facts} if "calls" in facts else facts
