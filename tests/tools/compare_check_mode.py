#!/usr/bin/env python3
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a playbook in check mode, then for real, then both again, and compares them task by task.

    compare_check_mode.py [--once] PLAYBOOK [ANSIBLE-PLAYBOOK ARGUMENT...]

Holds: check mode predicts the very changes of the run, item by item; the second run changes nothing, and check mode
foretells that too. ``--once`` leaves out the second run. Status 1 with a line for each difference; 2 when a run failed.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile

Key = tuple[str, str, str, str]
Changes = collections.Counter[Key]


def run(arguments: list[str]) -> tuple[int, Changes, str]:
    """Run ansible-playbook: its status, the tasks and items that reported a change, its output."""
    with tempfile.TemporaryDirectory() as directory:
        record = pathlib.Path(directory, "changes.jsonl")
        record.touch()
        here = pathlib.Path(__file__).resolve().parent
        plugins = [str(here / "callback_plugins"), os.environ.get("ANSIBLE_CALLBACK_PLUGINS", "")]
        enabled = ["gpuops_changes", os.environ.get("ANSIBLE_CALLBACKS_ENABLED", "")]
        environment = {
            **os.environ,
            "GPUOPS_CHANGES": str(record),
            "ANSIBLE_CALLBACK_PLUGINS": ":".join(filter(None, plugins)),
            "ANSIBLE_CALLBACKS_ENABLED": ",".join(filter(None, enabled)),
        }
        done = subprocess.run(
            ["ansible-playbook", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        entries = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    if not entries:
        return done.returncode or 2, collections.Counter(), done.stdout + "\nNo task was recorded."
    changed = [entry for entry in entries if entry["changed"]]
    return (
        done.returncode,
        collections.Counter((entry["host"], entry["place"], entry["task"], entry["item"]) for entry in changed),
        done.stdout,
    )


def describe(key: Key) -> str:
    """One changed task or item as a line."""
    host, place, task, item = key
    return f"{host}: {task} ({place})" + (f" [{item}]" if item else "")


def compare(predicted: Changes, done: Changes, what: str) -> list[str]:
    """A line for each change that is only in one of both."""
    lines = [f"{what}: only in check mode: {describe(key)}" for key in (predicted - done).elements()]
    return lines + [f"{what}: not in check mode: {describe(key)}" for key in (done - predicted).elements()]


def main(arguments: list[str]) -> int:
    """Entry point."""
    once = "--once" in arguments[:1]
    arguments = arguments[1:] if once else arguments
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    differences: list[str] = []
    for what in ["first run"] if once else ["first run", "second run"]:
        changes = {}
        for mode in ("--check", ""):
            status, changes[mode], output = run([*arguments, *filter(None, [mode])])
            if status:
                print(output)
                print(f"{what}{' in check mode' if mode else ''}: ansible-playbook ended with status {status}.")
                return 2
        differences += compare(changes["--check"], changes[""], what)
        print(f"{what}: {sum(changes['--check'].values())} changes predicted, {sum(changes[''].values())} made")
        if what == "second run":
            differences += [f"second run: changed: {describe(key)}" for key in changes[""].elements()]
    print("\n".join(differences) or "check mode and runs agree")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
