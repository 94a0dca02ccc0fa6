"""Tables: the same cells in every format, whatever characters they hold."""

import re

import pytest

from vitaepp.presentation.tables import aligned, escape_latex, html, latex, markdown

LINES = [["", "AUC", "p"], ["a|b & <c>", "0.750 ± 0.100", "< 0.001"], ["run_1", "—", ""]]


def test_columns_of_a_terminal_line_up():
    header, rule, *rows = aligned(LINES).splitlines()
    assert len(rule) == max(map(len, (header, *rows)))
    ends = {
        line.index(cell) + len(cell)
        for line, cell in zip([header, *rows], ["AUC", "0.100", "—"], strict=False)
    }
    assert len(ends) == 1
    assert not any(line != line.rstrip() for line in (header, *rows))


def test_markdown_has_as_many_cells_as_the_table():
    lines = markdown(LINES).splitlines()
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in lines)
    assert lines[1] == "| --- | ---: | ---: |"


def test_html_escapes_what_it_is_given():
    text = html(LINES)
    assert "a|b &amp; &lt;c&gt;" in text
    assert text.count("<td") == 4


def test_latex_compiles_to_the_same_text():
    text = latex(LINES, comment="50 %\nof all", rules=[1])
    assert text.startswith("% 50 % of all\n\\begin{tabular}{lrr}")
    assert text.count("{") == text.count("}")
    body = text[text.index("\\toprule") :]
    assert body.count("\\midrule") == 2
    assert body.index("\\midrule\nrun\\_1") > 0
    assert "$<$ 0.001" in body


@pytest.mark.parametrize(
    ("text", "coded"),
    [
        ("[-0.1, +0.2]", "[$-$0.1, $+$0.2]"),
        ("vitae-vit-2", "vitae-vit-2"),
        ("L_edge_2", r"$\mathcal{L}_{\mathrm{edge}}$\_2"),
        ("L_edges", r"L\_edges"),
        ("FINAL_CL", r"FINAL\_CL"),
        ("96×96 {x}~^\\", r"96$\times$96 \{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}"),
    ],
)
def test_latex_of_signs_losses_and_special_characters(text, coded):
    assert escape_latex(text) == coded
