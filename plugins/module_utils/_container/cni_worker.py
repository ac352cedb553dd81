# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has plugins of CNI make or take away a container's network.

For one that CRIU makes, as a program of its own that CRIU starts when the namespace is there and nothing in it
(:mod:`_container.cni`), so it imports nothing of this collection. Facts: the CNI specification 1.0, "Section 3:
Execution of Network Configurations" (parameters in the environment, configuration on standard input, the result of each
plugin as ``prevResult`` of the next one).

Arguments: a file with the plan, the report to write, and the pid of a process in the namespace.
Plan: ``container_id``, ``interface``, ``path``, and ``plugins``, each with its ``program`` and ``config``.
Report: ``result`` of the last plugin, or why it has ``failed``, and then the exit status is 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

#: For one plugin, in seconds: some ask a DHCP server or wait for an address to be usable.
_SECONDS = 60


class PluginError(Exception):
    """A plugin has failed; the text says which, and what it says."""


def add(plan: dict[str, Any], namespace: str) -> dict[str, Any]:
    """Have the network made. After a failure what was made is taken away again. Raises PluginError."""
    result: dict[str, Any] = {}
    try:
        for plugin in plan["plugins"]:
            config = {**plugin["config"], "prevResult": result} if result else plugin["config"]
            text = _run(plan, plugin["program"], config, "ADD", namespace)
            # One that makes nothing, as some of a chain do, may say nothing.
            result = _parsed(plugin["program"], text) if text.strip() else result
    except PluginError:
        delete(plan, namespace)
        raise
    return result


def delete(plan: dict[str, Any], namespace: str) -> list[str]:
    """Have it taken away, which the specification allows where there is none; what the plugins complain of."""
    problems = []
    for plugin in reversed(plan["plugins"]):
        try:
            _run(plan, plugin["program"], plugin["config"], "DEL", namespace)
        except PluginError as error:
            problems.append(str(error))
    return problems


def _run(plan: dict[str, Any], program: str, config: dict[str, Any], command: str, namespace: str) -> str:
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": plan["container_id"],
        "CNI_NETNS": namespace,
        "CNI_IFNAME": plan["interface"],
        "CNI_PATH": plan["path"],
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    try:
        # A step knows no AnsibleModule whose run_command it could use.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            [program],
            input=json.dumps(config),
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        # ValueError: no text for an environment.
        raise PluginError(f"{program} ({command}): {error}") from error
    if done.returncode:
        said = (done.stdout or done.stderr).strip()
        try:
            found = json.loads(done.stdout)
            said = " ".join(str(found[key]) for key in ("msg", "details") if found.get(key)) or said
        except (ValueError, AttributeError, TypeError):
            pass
        raise PluginError(f"{program} ({command}): {said or f'exit status {done.returncode}'}")
    return done.stdout


def _parsed(program: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise PluginError(f"{program} (ADD): its result is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise PluginError(f"{program} (ADD): its result is no object")
    return found


def main() -> None:
    """Do it, and say how it went."""
    plan_path, report, pid = sys.argv[1:4]
    found: dict[str, Any]
    try:
        with open(plan_path, encoding="utf-8") as stream:
            plan = json.load(stream)
        found = {"result": add(plan, f"/proc/{pid}/ns/net")}
    except (PluginError, OSError, ValueError) as error:
        found = {"failed": str(error)}
    with open(report, "w", encoding="utf-8") as stream:
        json.dump(found, stream)
    if "failed" in found:
        # CRIU ends the restore then.
        raise SystemExit(1)


if __name__ == "__main__":
    main()
