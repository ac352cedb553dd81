# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m gpuops_bench``: the sections that are asked for, on a node of their own. See README.md."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
for _path in (ROOT / "tests" / "lab", ROOT / "tests" / "integration"):
    sys.path.append(str(_path))

import in_node  # noqa: E402
from gpuops_lab import node as lab_node  # noqa: E402
from gpuops_lab.config import LabError  # noqa: E402

from gpuops_bench import capture, many, migrate, ours, overhead, report, restore, role, transfer  # noqa: E402
from gpuops_bench.bench import COLD, WARM, Bench, say  # noqa: E402
from gpuops_bench.measure import Comparison  # noqa: E402

SECTIONS = {
    "restore": restore.run,
    "role": role.run,
    "many": many.run,
    "overhead": overhead.run,
    "capture": capture.run,
    "transfer": transfer.run,
    "migrate": migrate.run,
}


def main(arguments: list[str]) -> int:
    """Exit status 1 when a section could not be measured; what was measured is reported all the same."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--sizes", default="64 1024 4096", help="MiB that the workload holds")
    parser.add_argument("--many", type=int, default=256, help="MiB of each of many workloads")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--caches", default=f"{WARM} {COLD}")
    parser.add_argument("--route", choices=sorted(ours.ROUTES), default="one")
    parser.add_argument("--containerd", default=os.environ.get("GPUOPS_CONTAINERD", "1.7"))
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "bench")
    options = parser.parse_args(arguments)
    sizes = tuple(int(size) for size in options.sizes.split())
    found: list[Comparison] = []
    failed = []
    (node,) = lab_node.up([f"bench-{os.getpid()}"], options.containerd)
    try:
        in_node.install(node, ROOT)
        bench = Bench(node, sizes, options.pairs, tuple(options.caches.split()), options.route, options.many)
        for name in options.sections or SECTIONS:
            say(f"section {name}")
            try:
                found += SECTIONS[name](bench)
            except LabError as error:
                failed.append(name)
                say(f"section {name} could not be measured: {error}")
            report.write(options.out, found)
    finally:
        lab_node.down(node.name)
    print(report.table(found))
    print(f"\n{options.out}/results.json, {options.out}/phases.svg")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
