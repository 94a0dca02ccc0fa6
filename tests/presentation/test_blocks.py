"""Pictures on a terminal."""

import io
import re

import numpy as np
import pytest

from vitaepp.presentation.blocks import HALF, LETTERS, SHADES, draw, in_characters

PICTURES = {
    "left": np.repeat(np.array([[0.0, 255.0]]), 2, axis=0),
    "right": np.array([[255.0, 0.0], [0.0, 255.0]]),
}


class Terminal(io.TextIOWrapper):
    """A terminal of an encoding, whose text can be read."""

    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self):
        return True

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn on a terminal of an encoding, a kind and a width."""

    def draw_on(encoding="utf-8", term="xterm-256color", width=82, **variables):
        for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"TERM": term, "COLUMNS": str(width), **variables}.items():
            monkeypatch.setenv(name, value)
        terminal = Terminal(encoding)
        return draw(PICTURES, terminal), terminal.text()

    return draw_on


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_terminal_of_colours_shows_two_pixels_a_character(drawn):
    done, text = drawn(COLORTERM="truecolor", width=42)
    assert done
    lines = plain(text).splitlines()
    assert lines[0].split() == ["left", "right"]
    assert set("".join(lines[1:])) == {HALF, " "}
    assert {len(line) for line in lines[1:]} == {42}  # the whole width
    assert len(lines) == 11  # 20 columns of a square picture are 10 lines
    greys = re.findall(r"38;2;(\d+);(\d+);(\d+);48;2;(\d+);\d+;\d+", text)
    assert {grey[0] for grey in greys} == {"0", "255"}
    assert all(len(set(grey[:3])) == 1 for grey in greys)


@pytest.mark.parametrize(
    ("options", "characters"),
    [
        ({"NO_COLOR": "1"}, SHADES),
        ({"term": "dumb"}, SHADES),
        ({"encoding": "ascii"}, LETTERS),
        ({"encoding": "latin-1"}, LETTERS),
    ],
)
def test_without_colours_or_unicode_it_is_shades_or_letters(drawn, options, characters):
    done, text = drawn(**options)
    assert done
    assert "\x1b[" not in text
    black, white = characters[0], characters[-1]
    first, last = text.splitlines()[1], text.splitlines()[-1]
    width = (len(first) - 2) // 2
    half = width // 2  # of an odd width, the column between the two is grey
    assert (first[:half], first[width - half : width]) == (black * half, white * half)
    assert first[width + 2 :][:half] == white * half
    assert last[width + 2 :][:half] == black * half


def test_it_draws_where_something_can_be_seen_only(drawn):
    assert draw(PICTURES, io.StringIO()) is False
    assert drawn(width=12) == (False, "")
    terminal = Terminal("utf-8")
    assert (draw({}, terminal), terminal.text()) == (False, "")


def test_brighter_is_never_a_darker_character():
    ramp = np.linspace(0, 255, 48)[None].repeat(2, axis=0)
    for characters in (SHADES, LETTERS):
        (line,) = in_characters({"": ramp}, 48, characters)[1:]
        levels = [characters.index(c) for c in line]
        assert levels == sorted(levels)
        assert set(levels) == set(range(len(characters)))
