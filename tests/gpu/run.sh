#!/usr/bin/env bash
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# tests/gpu/run.sh [BUNDLE]: the test on this host's GPU, from the archive that make gpu-bundle has made. Needs root,
# Python 3.12 and an NVIDIA driver, and no network. Results go to $OUT (default: ./gpu-test-output). See README.md.
set -euo pipefail

die() {
    printf 'run.sh: %s\n' "$*" >&2
    exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
bundle=${1:-}
[ -z "$bundle" ] || bundle=$(realpath "$bundle")
for candidate in "$here/bundle.tar.xz" "$here/../../build/gpu/bundle.tar.xz"; do
    [ -n "$bundle" ] || [ ! -e "$candidate" ] || bundle=$candidate
done
[ -z "$bundle" ] || [ ! -d "$bundle" ] || bundle=$bundle/bundle.tar.xz
[ -f "$bundle" ] || die "there is no bundle ${bundle:-beside this script}; make it with 'make gpu-bundle' and name it."
[ "$(id -u)" = 0 ] || die "containers, CRIU and other processes' GPU memory need root."

python=
# The system's own first: an environment with frameworks in it takes seconds to start.
for candidate in /usr/bin/python3 /usr/bin/python3.12 "${GPUOPS_GPU_PYTHON:-python3}" python3 python3.12; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then
        python=$(command -v "$candidate")
        break
    fi
done
[ -n "$python" ] || die "the bundle's Python packages are for Python 3.12, which this host does not have."

export GPUOPS_GPU_DIR=${GPUOPS_GPU_DIR:-/opt/gpuops-gpu} OUT=${OUT:-$PWD/gpu-test-output}
[ ! -e "$GPUOPS_GPU_DIR" ] || [ -e "$GPUOPS_GPU_DIR/native.json" ] || die "$GPUOPS_GPU_DIR exists and is not ours."
mkdir -p "$GPUOPS_GPU_DIR" "$OUT"
# Python unpacks it, for a bare host may have no xz.
"$python" - "$bundle" "$GPUOPS_GPU_DIR" <<'PYTHON'
import sys
import tarfile

with tarfile.open(sys.argv[1]) as archive:
    archive.extractall(sys.argv[2], filter="data")
PYTHON

tests=$GPUOPS_GPU_DIR/collections/ansible_collections/gpuops/restore/tests
export PYTHONPATH=$tests/gpu:$tests/lab:$GPUOPS_GPU_DIR/site PYTHONPYCACHEPREFIX=$GPUOPS_GPU_DIR/pycache PYTHONUNBUFFERED=1
# Images of machines set it, and then every start of Python compiles all that it imports.
unset PYTHONDONTWRITEBYTECODE
# Nothing in the folder it was called from is to be taken for a Python package.
cd "$GPUOPS_GPU_DIR"
exec "$python" -m gpuops_gpu
