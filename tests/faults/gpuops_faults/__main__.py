# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python -m gpuops_faults``: each fault at each call of each step, on each generation. See README.md."""

from __future__ import annotations

import argparse
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[3]
for _path in (ROOT / "tests" / "lab", ROOT / "tests" / "integration"):
    sys.path.append(str(_path))

from gpuops_faults import ledger, series, strike, table  # noqa: E402
from gpuops_faults.steps import STEPS  # noqa: E402

GENERATIONS = ("1.6", "1.7", "2.1")
#: Exit statuses besides 0: something was wrong after a fault, or some were not struck yet.
WRONG, LEFT = 1, 3


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="faults")
    parser.add_argument("--containerd", default=" ".join(GENERATIONS))
    parser.add_argument("--steps", default=" ".join(STEPS))
    parser.add_argument("--faults", default=" ".join(strike.FAULTS))
    parser.add_argument("--every", type=int, default=1, help="strike at every nth call only")
    parser.add_argument("--nodes", type=int, default=2, help="nodes side by side")
    parser.add_argument("--minutes", type=float, default=0.0, help="begin no fault after so long; 0: no limit")
    parser.add_argument("--ledger", type=pathlib.Path, default=ROOT / "build" / "faults" / "ledger.jsonl")
    parser.add_argument("--table", type=pathlib.Path, help="strike nothing; write the table into this document")
    parser.add_argument("--code", help="digests whose faults the table is of, instead of that of this tree")
    options = parser.parse_args(arguments)
    book = ledger.Ledger(options.ledger)
    code = ledger.digest(ROOT / "plugins")
    if options.table:
        chosen = (options.code or code).split()
        lines = table.table([entry for entry in book.entries() if entry.code in chosen], GENERATIONS)
        options.table.write_text(table.replaced(options.table.read_text(encoding="utf-8"), lines), encoding="utf-8")
        return 0
    ended = threading.Event()
    # Faults that are under way come to their end, and the nodes are taken down.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    return _run(options, book, code, ended)


def _run(options: argparse.Namespace, book: ledger.Ledger, code: str, ended: threading.Event) -> int:
    begun = time.monotonic()

    def is_over() -> bool:
        return ended.is_set() or bool(options.minutes) and time.monotonic() - begun > options.minutes * 60

    wrong = remaining = 0
    generations = options.containerd.split()
    while generations and not is_over():
        generation = generations.pop(0)
        run = series.Series(generation, code, options.steps.split(), book, is_over)
        try:
            wanted = series.points(run.calls(), options.faults.split(), options.every)
            todo = series.left(wanted, book.entries(), code, generation)
            print(f"containerd {generation}: {len(wanted) - len(todo)} of {len(wanted)} faults of {code} are struck")
            done = run.strike(todo, options.nodes)
        finally:
            run.close()
        struck = {entry.key for entry in done}
        wrong += len({entry.key for entry in done if entry.wrong})
        remaining += len(todo) - len(struck)
    untouched = f", containerd {' and '.join(generations)} not begun" if generations else ""
    print(f"{wrong} wrong, {remaining} left{untouched}; {time.monotonic() - begun:.0f} s")
    return WRONG if wrong else LEFT if remaining or generations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
