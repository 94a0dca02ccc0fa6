#!/usr/bin/env bash
# Measures the paper's scale on a machine with one GPU, in less than ten minutes and one call:
#
#   benchmarks/gpu.sh [OUT.json]
#
# Needs an interpreter ($PYTHON, python3 by default) with the package's dependencies and MONAI; the
# package itself need not be installed. Writes benchmarks/results/<device>.json and the README's
# table of it; commit both.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
"${PYTHON:-python3}" -W ignore benchmarks/gpu.py --within 480 ${1:+--out "$1"}
