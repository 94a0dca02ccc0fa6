"""Flow diagrams: every box is inside, and none covers another."""

from hypothesis import given, settings
from hypothesis import strategies as st

from vitaepp.presentation.drawing import Label, Stroke
from vitaepp.presentation.flow import Box, Stage, flow_chart

texts = st.text("abc defgh,0123", min_size=1, max_size=90).filter(str.strip)
boxes = st.builds(Box, texts, st.lists(texts, max_size=3))
stages = st.builds(Stage, boxes, st.none() | boxes)


def frames(drawing):
    """Left, top, right and bottom of every box."""
    closed = [s.points for s in drawing.shapes if isinstance(s, Stroke) and len(s.points) == 5]
    return [(p[0][0], p[0][1], p[2][0], p[2][1]) for p in closed]


@settings(max_examples=30, deadline=None)
@given(st.lists(stages, min_size=1, max_size=4), st.lists(boxes, max_size=12))
def test_boxes_are_apart_and_hold_their_text(main, last):
    drawing = flow_chart(main, last, says="flow")
    found = frames(drawing)
    lost = sum(stage.lost is not None for stage in main[1:])
    assert len(found) == len(main) + lost + len(last)
    for left, top, right, bottom in found:
        assert 0 <= left < right <= drawing.width
        assert 0 <= top < bottom <= drawing.height
    for i, (left, top, right, bottom) in enumerate(found):
        for other in found[i + 1 :]:
            assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top
    for label in (s for s in drawing.shapes if isinstance(s, Label)):
        width = 5 * len(label.text)
        assert any(
            left < label.x and label.x + width < right + 1 and top < label.y < bottom
            for left, top, right, bottom in found
        )


def test_a_diagram_is_written_as_svg_that_needs_nothing_else(tmp_path):
    drawing = flow_chart([Stage(Box("Found <&>", ["3 subjects"]))], says="Flow & more")
    drawing.save(tmp_path / "flow.svg")
    text = (tmp_path / "flow.svg").read_text(encoding="utf-8")
    assert "<title>Flow &amp; more</title>" in text
    assert "Found &lt;&amp;&gt;" in text
    assert "var(" not in text
