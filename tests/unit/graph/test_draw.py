"""Pictures of graphs."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from shiplap.errors import UsageError
from shiplap.graph.draw import STYLES, draw, label
from shiplap.graph.node import About, Node
from shiplap.graph.operations import Copy, FileChange, HttpSource, ImageSource, LocalSource, Run

BASE = Node(
    ImageSource("docker.io/library/go:1@sha256:" + "a" * 64, "sha256:" + "a" * 64, "linux/amd64"), (), About("b")
)
CONTEXT = Node(LocalSource("context"), (), About("c"))
COPY = Node(FileChange((Copy(1, ("/f",), "/"),)), (BASE, CONTEXT), About("[build 2/3] COPY f /", stage="build"))
MAKE = Node(Run(("sh",), (), "/", "linux/amd64"), (COPY,), About('[build 3/3] RUN echo "<a&b>"\n  && x', stage="build"))
LAST = Node(
    FileChange((Copy(0, ("/x",), "/"),), base=-1), (MAKE,), About("[stage-1 1/1] COPY --from=build", stage="last")
)


def test_text_shows_stages_steps_and_where_they_come_from() -> None:
    assert draw([LAST], "text", ["debug"]) == (
        "sources\n"
        "  #1 image docker.io/library/go:1\n"
        "  #2 local context\n"
        "stage build\n"
        "  #3 COPY f /  <- #1, #2\n"
        '  #4 RUN echo "<a&b>"   && x  <- #3\n'
        "stage last\n"
        "  #5 COPY --from=build  <- #4\n"
        "stage debug\n"
        "  (not needed, not built)\n"
    )


def test_mermaid_quotes_what_it_would_read() -> None:
    text = draw([LAST], "mermaid", ["debug"])
    assert text.startswith("flowchart TD\n")
    assert 'n4["RUN echo &quot;&lt;a&amp;b&gt;&quot;   &amp;&amp; x"]' in text
    assert "n3 --> n4" in text
    assert 'x0["debug (not needed)"]:::skipped' in text


def test_dot_quotes_quotes() -> None:
    text = draw([LAST], "dot")
    assert 'n4 [label="RUN echo \\"<a&b>\\"   && x"];' in text
    assert "n4 -> n5;" in text
    assert text.count("{") == text.count("}")


def test_svg_is_well_formed_and_boxes_do_not_overlap() -> None:
    root = ElementTree.fromstring(draw([LAST], "svg", ["debug"]))
    space = "{http://www.w3.org/2000/svg}"
    boxes = [(box.get("x"), box.get("y")) for box in root.iter(f"{space}rect") if box.get("rx") == "5"]
    assert len(boxes) == len(set(boxes)) == 6
    assert len(list(root.iter(f"{space}path"))) == 1 + 4  # the arrow head, and an arrow for each input
    assert 'RUN echo "<a&b>"' in "".join(root.itertext())


@pytest.mark.parametrize("style", STYLES)
def test_a_graph_without_nodes_shows_what_is_left_out(style: str) -> None:
    text = draw([], style, ["debug"])
    assert "debug" in text and "not needed" in text
    assert "image" not in text


def test_an_unknown_style_names_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        draw([LAST], "png")
    assert caught.value.code == "unknown-style"
    assert "svg" in (caught.value.hint or "")


def test_an_input_used_twice_is_one_arrow() -> None:
    twice = Node(FileChange((Copy(1, ("/a",), "/"), Copy(1, ("/b",), "/"))), (CONTEXT, CONTEXT), About("twice"))
    assert draw([twice], "dot").count("->") == 1


def test_long_labels_are_cut_and_urls_shown() -> None:
    long = Node(Run(("x",), (), "/", "linux/amd64"), (), About("RUN " + "x" * 200))
    assert len(label(long)) == 72 and label(long).endswith("…")
    assert label(Node(HttpSource("https://e.x/f", "f"), (), About("n"))) == "http https://e.x/f"
