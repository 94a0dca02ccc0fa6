"""Gathers the site's pages in one folder of plain Markdown, which any generator can build.

    python docs/make/pages.py build/docs

Written are `build/docs/pages`: docs/, the tutorials and pictures that were made before, and some
files of the repository at their own path. `<!-- insert NAME -->` in a page is replaced by what
`parts.py` makes. Links are written as they work in the repository, `../results/README.md`, and
changed here to those of the site.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import sys
from pathlib import Path

from parts import PARTS

ROOT = Path(__file__).parents[2]

#: Files of the repository that are on the site.
SHOWN = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "CITATION.cff",
    "results/*.md",
    "results/*/*",
    "benchmarks/*.md",
    "benchmarks/results/*",
    "src/vitaepp/ingest/layouts/series.tsv",
)

LINK = re.compile(
    r"\[(?P<text>[^\]]*)\]\((?!https?:|mailto:|#)(?P<path>[^)\s#]+)(?P<anchor>[^)]*)\)"
)
INSERT = re.compile(r"<!-- insert (?P<name>\w+) -->")


def main(built: Path) -> None:
    """Write all pages anew."""
    pages = built / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    sources = _sources(built)
    for name, path in sources.items():
        target = pages / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".md":
            shutil.copyfile(path, target)
            continue
        text = path.read_text(encoding="utf-8")
        text = INSERT.sub(lambda match: PARTS[match["name"]](), text)
        target.write_text(_with_links(text, name, sources), encoding="utf-8")


def _sources(built: Path) -> dict[str, Path]:
    """Where each file of the site comes from, by its path there."""
    docs = ROOT / "docs"
    sources = {
        path.relative_to(docs).as_posix(): path
        for path in sorted(docs.rglob("*"))
        if path.is_file() and not path.is_relative_to(docs / "make")
    }
    for pattern in SHOWN:
        sources |= {p.relative_to(ROOT).as_posix(): p for p in ROOT.glob(pattern) if p.is_file()}
    for picture in (built / "gallery").glob("*.png"):
        sources[f"gallery/{picture.name}"] = picture
    for page in (built / "tutorials").glob("*.md"):
        if f"tutorials/{page.name}" in sources:
            sources[f"tutorials/{page.name}"] = page
            # What the tutorial made, as far as it shows it.
            for match in LINK.finditer(page.read_text(encoding="utf-8")):
                if (made := page.parent / match["path"]).is_file() and made.suffix != ".md":
                    sources[f"tutorials/{match['path']}"] = made
    return sources


def _with_links(text: str, name: str, sources: dict[str, Path]) -> str:
    """A page with links of the site; of a link to a file that is not there, the text."""
    home = name if (ROOT / name).is_file() else f"docs/{name}"

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(home), match["path"]))
        target = "index.md" if path == "README.md" else path.removeprefix("docs/")
        if target not in sources and (ROOT / path).exists():
            return match["text"]
        there = posixpath.relpath(target, posixpath.dirname(name) or ".")
        return f"[{match['text']}]({there}{match['anchor']})"

    return LINK.sub(link, text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
