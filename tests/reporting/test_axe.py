"""The report in Chromium, by the rules of axe: light and dark, on a desk and on a phone.

`make axe` fetches axe-core and runs this. Without it, or without Chromium, the tests are skipped.
"""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.reporting.test_report import make_run
from vitaepp.reporting import report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

RUN = """
window.addEventListener("load", async () => {
  const found = await axe.run();
  const told = found.violations.map(v => [v.id, v.help, v.nodes.map(n => n.html.slice(0, 200))]);
  const wide = document.documentElement.scrollWidth > innerWidth;
  const out = document.createElement("pre");
  out.id = "axe";
  out.textContent = JSON.stringify({passes: found.passes.length, violations: told, wide});
  document.body.replaceChildren(out);
});
"""


@pytest.fixture(scope="module")
def axe():
    """The text of axe-core."""
    file = os.environ.get("VITAEPP_AXE")
    if CHROMIUM is None or file is None or not Path(file).is_file():
        pytest.skip("needs Chromium, and axe.min.js named by VITAEPP_AXE; make axe has both")
    return Path(file).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("axe") / "demo")
    summary = json.loads((run / "summary.json").read_text())
    summary["store"]["account"] = {"found": 41, "failed": {"damaged": 1}, "left_out": {"a copy": 2}}
    (run / "summary.json").write_text(json.dumps(summary))
    item = {"what": "size", "score": 0.7, "verdict": "red", "sentence": "Size tells the label."}
    (run / "audit").mkdir()
    (run / "audit" / "audit.json").write_text(json.dumps([item]))
    return report(run, run.parent / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [1200, 500])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(axe, page, tmp_path, dark, width):
    if dark:  # the media query itself cannot be set from the command line
        page = page.replace("screen and (prefers-color-scheme: dark)", "screen")
    scripts = f"<script>{axe}</script><script>{RUN}</script></body>"
    (tmp_path / "page.html").write_text(page.replace("</body>", scripts), encoding="utf-8")
    chromium = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/c",
    ]
    done = subprocess.run(
        [
            *chromium,
            f"--window-size={width},900",
            "--virtual-time-budget=20000",
            "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    told = re.search(r'<pre id="axe">(.*?)</pre>', done.stdout, re.S)
    assert told, "axe did not end"
    found = json.loads(html.unescape(told[1]))
    assert found["passes"] > 20
    assert found["violations"] == []
    assert not found["wide"], "the page is wider than its window"
