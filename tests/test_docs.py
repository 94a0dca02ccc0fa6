"""The documentation site: tutorials are run, and its parts are made of what there is."""

import re
import sys
from pathlib import Path

import pytest

import vitaepp
from vitaepp.cli.app import VERBS
from vitaepp.recipe.recipe import describe_settings

DOCS = Path(__file__).parents[1] / "docs"

PAGE = """# A page

```python
import numpy as np
total = 1 + 1
total
```

??? example "Folded"

    ```python
    print(total, "again")
    ```

```console
$ echo one; echo two >&2
$ vitaepp settings \\
    --json
```

```python
from pathlib import Path
Path("out").mkdir()
_ = Path("out/picture.png").write_bytes(b"")
```

![what it made](out/picture.png) [a page](../method.md) [a site](https://example.org)

```
vitaepp not run
```
"""


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "make"))
    for name in ("tutorials", "pages", "parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def run(tmp_path: Path, text: str) -> str:
    import tutorials

    page = tmp_path / "page.md"
    page.write_text(text)
    return tutorials.render(page, tmp_path / "work")


def test_a_tutorial_shows_what_its_code_printed(tmp_path: Path) -> None:
    text = run(tmp_path, PAGE)
    assert "total\n```\n\n```text\n2\n```" in text
    assert "    ```\n\n    ```text\n    2 again\n    ```" in text
    assert "$ echo one; echo two >&2\none\ntwo\n$ vitaepp settings \\\n    --json\n[" in text
    assert "](page/out/picture.png) [a page](../method.md) [a site](https://example.org)" in text
    assert "```\nvitaepp not run\n```" in text
    assert (tmp_path / "work/out/picture.png").is_file()


def test_a_tutorial_shows_no_times_of_the_machine_that_built_it(tmp_path: Path) -> None:
    lines = [
        "reading headers: 12 of 12 subjects in 52.3 s",
        "predicting: 2 scans in 0.1 s",
        "preparing: 7 of 1,200 subjects, 31 s",
        "epoch 1 of 2, loss 3.2, about 0:01:40 left",
        "trained 2 epochs in 208 s, 0.4% of it waiting for data: run",
        "scans: 12 of 12 subjects have a mask",
    ]
    text = run(tmp_path, "```python\n" + f"print({chr(10).join(lines)!r})" + "\n```\n")
    assert text.partition("```text\n")[2].splitlines()[:-1] == [
        "epoch 1 of 2, loss 3.2",
        "trained 2 epochs: run",
        "scans: 12 of 12 subjects have a mask",
    ]


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (
            "```console\n$ vitaepp inspect nowhere\n```\n",
            r"(?s)`vitaepp inspect nowhere` ended with 2.*nowhere",
        ),
        ("```console\n$ false\n```\n", "`false` ended with 1"),
        ("```python\n1 / 0\n```\n", "ZeroDivisionError"),
    ],
)
def test_a_tutorial_that_fails_is_named(tmp_path: Path, block: str, says: str) -> None:
    import tutorials

    with pytest.raises(tutorials.TutorialError, match=says):
        run(tmp_path, block)


def test_the_reference_has_everything_that_is_public() -> None:
    import parts

    named = re.findall(r"^::: vitaepp\.(\w+)$", parts.functions() + "\n" + parts.objects(), re.M)
    elsewhere = {"VitaeppError", "__version__"}
    assert sorted(named) == sorted(set(vitaepp.__all__) - elsewhere)
    commands = re.findall(r"^## `vitaepp (\w+)`$", parts.commands(), re.M)
    assert sorted(commands) == sorted(VERBS)
    # docs/python.md says which command is no function.
    assert {*VERBS} - {*vitaepp.__all__} == {"settings"}
    settings = re.findall(r'<a id="([\w.]+)">', parts.settings())
    assert settings == [setting.name for setting in describe_settings()]


def test_links_lead_to_pages_of_the_site_or_are_text(tmp_path: Path) -> None:
    import pages

    pages.main(tmp_path)
    for page in (tmp_path / "pages").rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert "<!-- insert" not in text
        if page.parent.name in ("tutorials", "pages"):
            continue  # their pictures are made when the site is built
        for link in pages.LINK.finditer(text):
            assert (page.parent / link["path"]).exists(), (page, link[0])


def test_every_page_is_in_the_navigation() -> None:
    nav = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    missing = [
        page
        for path in sorted(DOCS.rglob("*.md"))
        if (page := path.relative_to(DOCS).as_posix()) not in nav
    ]
    assert not missing
