"""The allocator's options: taken where the C library is glibc, and harmless elsewhere."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from vitaepp.system.host import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = []
for step in range(26):
    if step % 7 == 4:
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    bytes([step]) * 36_000_000
print(min(after - before for before, after in zip(faults, faults[1:])))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again_without_page_faults():
    def faults(how: str) -> int:
        run = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)

    # 36 MB in each of 7 steps, more than glibc ever keeps: without it, their pages are asked for
    # every time; with it, only while the heap finds its place. A kernel that takes idle pages back
    # adds faults and never saves any: the least of three times counts.
    assert faults("leave") > 3 * faults("keep")
