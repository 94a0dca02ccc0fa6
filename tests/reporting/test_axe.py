"""The report in Chromium: by the rules of axe, light and dark, on a desk and a phone; and by keys.

`make axe` fetches axe-core and runs this. Without it, or without Chromium, the tests are skipped.
"""

import html
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.reporting.test_report import add_maps, add_similar_and_odd, make_run
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


class Browser:
    """Chromium with one page, by its protocol for developers: JSON between two pipes, 0 after each.

    Keys that a script makes up do nothing to a slider; those of the protocol are like a person's.
    """

    def __init__(self, page, folder):
        import fcntl  # Windows has none

        (reads, self.write), (self.read, writes) = os.pipe(), os.pipe()

        def to_three_and_four():  # where Chromium expects them; first out of the way of each other
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reads, writes)]
            for end, number in zip(ends, (3, 4), strict=True):
                os.dup2(end, number)

        self.process = subprocess.Popen(
            [*chromium(folder), "--remote-debugging-pipe"],
            preexec_fn=to_three_and_four,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self.pending, self.number, self.session = b"", 0, {}
        target = self.ask("Target.createTarget", url=page.as_uri())["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        # An empty page comes before, which is complete, too.
        while self.script("location.protocol + document.readyState") != "file:complete":
            time.sleep(0.1)

    def ask(self, method, **parameters):
        """The answer to a command; what Chromium tells meanwhile is not of interest."""
        self.number += 1
        asked = {"id": self.number, "method": method, "params": parameters, **self.session}
        os.write(self.write, json.dumps(asked).encode() + b"\0")
        while True:
            while b"\0" not in self.pending:
                assert select.select([self.read], [], [], 60)[0], f"{method}: no answer"
                more = os.read(self.read, 2**16)
                assert more, "Chromium has ended"
                self.pending += more
            message, _, self.pending = self.pending.partition(b"\0")
            told = json.loads(message)
            if told.get("id") == self.number:
                return told["result"]

    def script(self, text):
        """The value of an expression in the page."""
        return self.ask("Runtime.evaluate", expression=text, returnByValue=True)["result"]["value"]

    def press(self, key, code):
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            facts = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self.ask("Input.dispatchKeyEvent", **facts)

    def close(self):
        """End Chromium."""
        self.process.terminate()
        self.process.wait(30)
        os.close(self.write)
        os.close(self.read)


def chromium(folder):
    """The command of Chromium with a profile of its own."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/c"]
    return [CHROMIUM, *flags]


SLIDERS = "[...document.querySelectorAll('.viewer input')]"

#: Which slider has the focus, where it stands, what is said of it, and where the shown sheet is.
STATE = f"""(() => {{
  const slider = document.activeElement, viewer = slider.closest(".viewer");
  if (!viewer || slider.type !== "range") return null;
  const sheet = viewer.querySelector(".sheet:not([hidden])");
  return {{which: {SLIDERS}.indexOf(slider), value: +slider.value, last: +slider.max,
    said: slider.getAttribute("aria-valuetext"), place: sheet.firstElementChild.style.transform}};
}})()"""


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of a number")
def test_every_slider_is_reached_and_moved_by_keys(axe, page, tmp_path):
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    browser = Browser(tmp_path / "page.html", tmp_path)
    try:
        reached = set()
        for _ in range(browser.script("document.querySelectorAll('*').length")):
            browser.press("Tab", 9)
            state = browser.script(STATE)
            if state is None:
                if browser.script("document.activeElement === document.body") and reached:
                    break  # once round
                continue
            reached.add(state["which"])
            for key, code, wanted in (
                ("Home", 36, 0),
                ("ArrowRight", 39, 1),
                ("End", 35, state["last"]),
                ("ArrowLeft", 37, state["last"] - 1),
            ):
                before = browser.script(STATE)
                browser.press(key, code)
                after = browser.script(STATE)
                assert after["value"] == wanted, key
                if wanted != before["value"]:
                    assert after["said"] != before["said"]
                    assert after["place"] != before["place"]
        assert len(reached) == browser.script(f"{SLIDERS}.length") == 2
    finally:
        browser.close()


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
    add_maps(run)
    add_similar_and_odd(run)
    return report(run, run.parent / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(axe, page, tmp_path, dark, width):
    if dark:  # the media query itself cannot be set from the command line
        page = page.replace("screen and (prefers-color-scheme: dark)", "screen")
    scripts = f"<script>{axe}</script><script>{RUN}</script></body>"
    (tmp_path / "page.html").write_text(page.replace("</body>", scripts), encoding="utf-8")
    done = subprocess.run(
        [
            *chromium(tmp_path),
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
