# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python -m gpuops_faults``: each fault at each call of each step, on each generation. See README.md."""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[3]
for _path in (ROOT / "tests" / "lab", ROOT / "tests" / "integration"):
    sys.path.append(str(_path))

from gpuops_lab import node as lab_node  # noqa: E402

from gpuops_faults import strike  # noqa: E402
from gpuops_faults.steps import STEPS  # noqa: E402
from gpuops_faults.strike import Bench, Outcome  # noqa: E402


def main(arguments: Sequence[str]) -> int:
    """Exit status 1 when something was wrong after a fault."""
    parser = argparse.ArgumentParser(prog="faults")
    parser.add_argument("--containerd", default="1.6 1.7 2.1")
    parser.add_argument("--steps", default=" ".join(STEPS))
    parser.add_argument("--faults", default=" ".join(strike.FAULTS))
    parser.add_argument("--every", type=int, default=1, help="strike at every nth call only")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "faults")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Outcome]] = {}
    for generation in options.containerd.split():
        found[generation] = _generation(generation, options.steps.split(), options.faults.split(), options.every)
        (options.out / "faults.json").write_text(
            json.dumps({name: [vars(outcome) for outcome in outcomes] for name, outcomes in found.items()}, indent=1)
        )
    table = "\n".join(_table(found))
    (options.out / "faults.md").write_text(table + "\n")
    print(table)
    return 1 if any(outcome.wrong for outcomes in found.values() for outcome in outcomes) else 0


def _generation(generation: str, names: Sequence[str], faults: Sequence[str], every: int) -> list[Outcome]:
    found = []
    for small in (False, True):
        kinds = [fault for fault in faults if (fault == strike.FULL) == small]
        if not kinds:
            continue
        (node,) = lab_node.up([f"faults-{os.getpid()}"], generation)
        try:
            bench = Bench(node, small)
            for name in names:
                calls = bench.calls(STEPS[name])
                for fault in kinds:
                    found += _series(bench, generation, name, fault, calls, every)
        finally:
            lab_node.down(node.name)
    return found


def _series(bench: Bench, generation: str, name: str, fault: str, calls: Sequence[str], every: int) -> list[Outcome]:
    begun = time.monotonic()
    numbers = range(1, len(calls) + 1, every)
    struck = [bench.strike(STEPS[name], fault, number, calls[number - 1]) for number in numbers]
    wrong = [outcome for outcome in struck if outcome.wrong]
    print(
        f"containerd {generation}, {name}, {fault}: {len(struck)} of {len(calls)} calls, {len(wrong)} wrong, "
        f"{time.monotonic() - begun:.0f} s",
        flush=True,
    )
    for outcome in wrong:
        print(f"  {outcome.number} {outcome.call}: {outcome.first}: {outcome.wrong}", flush=True)
    return struck


def _table(found: dict[str, list[Outcome]]) -> list[str]:
    lines = [
        "| step | fault | containerd | calls | how the struck run ended | wrong after one more run |",
        "|---|---|---|---|---|---|",
    ]
    for generation, outcomes in found.items():
        groups: dict[tuple[str, str], list[Outcome]] = collections.defaultdict(list)
        for outcome in outcomes:
            groups[outcome.step, outcome.fault].append(outcome)
        for (step, fault), group in groups.items():
            ends = collections.Counter(outcome.first for outcome in group)
            text = ", ".join(f"{count} {end}" for end, count in ends.most_common())
            wrong = sum(bool(outcome.wrong) for outcome in group)
            lines.append(f"| {step} | {fault} | {generation} | {len(group)} | {text} | {wrong} |")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
