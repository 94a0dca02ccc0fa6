"""A table of texts as plain text, Markdown, HTML and LaTeX.

Every function takes lines of cells, the header first. The first column holds names and is aligned
to the left; the others hold numbers and are aligned to the right.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from html import escape

Lines = Sequence[Sequence[str]]

_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "λ": r"$\lambda$",
    "<": "$<$",
    ">": "$>$",
    "…": r"\ldots{}",
    "—": "--",
    "–": "--",
}

#: A loss as recipes name it, `L_edge`, after its underscore was escaped.
_LOSS = re.compile(r"(?<![A-Za-z])L\\_(edge|per|CL)(?![A-Za-z])")

#: The sign of a number, and not the hyphen of a name.
_SIGN = re.compile(r"(?<![\w.])([-+])(?=\d)")


def aligned(lines: Lines) -> str:
    """A table for a terminal, with a rule below its header.

    >>> print(aligned([["", "AUC"], ["ViT-AE", "0.75"]]))
             AUC
    ────────────
    ViT-AE  0.75
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    header, *rows = (
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    return "\n".join([header, "─" * (sum(widths) + 2 * (len(widths) - 1)), *rows])


def markdown(lines: Lines, *, numbers: bool = True) -> str:
    r"""A table for a Markdown page.

    Args:
        lines: the table.
        numbers: whether columns after the first hold numbers, which are aligned to the right.

    >>> print(markdown([["", "AUC"], ["a|b", "0.75"]]))
    |  | AUC |
    | --- | ---: |
    | a\|b | 0.75 |
    """
    rule = ["---", *["---:" if numbers else "---"] * (len(lines[0]) - 1)]
    header, *rows = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *rows])


def html(lines: Lines, *below: str) -> str:
    """A table for a notebook, with what there is to say below it; texts are escaped.

    >>> html([["", "AUC"], ["a < b", "0.75"]]).count("<tr>")
    2
    """
    header, *rows = lines
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td style="text-align: right">{escape(cell)}</td>' for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    said = "".join(f"<p>{escape(text)}</p>" for text in below if text)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{said}"


def latex(lines: Lines, *, comment: str, rules: Collection[int] = ()) -> str:
    """A table for a paper that loads booktabs.

    Args:
        lines: the table.
        comment: how it was made, on one line above it.
        rules: rows, counted from 0 below the header, that have a rule above them.
    """
    body = [" & ".join(map(escape_latex, line)) + r" \\" for line in lines]
    rows = [
        line
        for i, row in enumerate(body[1:])
        for line in ([r"\midrule"] if i in rules else []) + [row]
    ]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(lines[0]) - 1)}}}"
    rest = [r"\toprule", body[0], r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([f"% {' '.join(comment.split())}", begin, *rest, ""])


def escape_latex(text: str) -> str:
    r"""A text as LaTeX shows it, with true minus signs and losses as the paper writes them.

    >>> escape_latex("run_1"), escape_latex("0.846 ± 0.034"), escape_latex("-0.020")
    ('run\\_1', '0.846 $\\pm$ 0.034', '$-$0.020')
    >>> escape_latex("ViT-AE + L_edge")
    'ViT-AE + $\\mathcal{L}_{\\mathrm{edge}}$'
    """
    escaped = "".join(_LATEX.get(character, character) for character in text)
    named = _LOSS.sub(r"$\\mathcal{L}_{\\mathrm{\1}}$", escaped)
    return _SIGN.sub(r"$\1$", named)
