"""What others wrote cannot drive a terminal."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiplap.events.printable import last_words, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP+q544e\x1b\\dcs", "dcs"),
        ("\x1b(0charset\x1bc", "charset"),
        ("\x9b2Jc1", "c1"),
        ("\x1b[2J\x1b[H\x1b[?1049hscreen", "screen"),
        ("half \x1b[", "half "),
        ("bell\x07 back\x08", "bell back"),
        ("user\u202egnp.exe", "usergnp.exe"),
        ("a\tb\nc", "a\tb\nc"),
        ("包裹 \U0001f469‍\U0001f4bb é", "包裹 \U0001f469‍\U0001f4bb é"),
    ],
)
def test_sequences_and_controls_go_text_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.sampled_from("\x1b\x9b\x07\x08\x0c\x0e[]()?;0123456789mHJKhlPX^_\\ab \x90\x9c"), max_size=40))
def test_nothing_that_is_left_moves_a_cursor(text: str) -> None:
    shown = printable(text)
    screen = pyte.Screen(200, 3)
    pyte.Stream(screen).feed(shown)
    assert screen.display[0].rstrip() == shown.rstrip() and screen.cursor.y == 0


def test_a_line_shows_as_carriage_returns_left_it() -> None:
    assert last_words(b"10%\r50%\r100%\r") == "100%"
    assert last_words(b"caf\xc3\xa9 \xff") == "café �"
