"""The demo, small; the whole of it is `make demo`."""

import pytest

from vitaepp.cli.demo import demo


@pytest.mark.slow
def test_the_demo_ends_with_a_table_and_a_report(tmp_path, capsys):
    page = demo(tmp_path / "demo", subjects=10)
    said = capsys.readouterr()
    assert page.read_text().startswith("<!doctype html>")
    for command in ("prepare", "pretrain", "embed", "evaluate", "reconstruct", "report"):
        assert f"$ vitaepp {command} " in said.err
    for line in ("ViT-AE++", "untrained encoder", "raw intensities"):
        assert line in said.out
