# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection, used as an operator would: playbooks by name, and one module by itself. This host is the node."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

from gpuops_gpu.runner import Done, Runner, StepError
from gpuops_gpu.settings import NAMESPACE

HOST = "gpu-host"
RECAP = re.compile(rf"^{HOST}\s*:.*\bok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Play:
    """A playbook that ended; ``message`` is what a failure said."""

    ok: bool
    changed: int
    seconds: float
    message: str


class Plays:
    """Runs playbooks for a list of workloads against one containerd."""

    def __init__(self, runner: Runner, base: pathlib.Path, address: pathlib.Path, state: pathlib.Path) -> None:
        self._runner = runner
        self._base = base
        self._directory = base / "ansible"
        self._address = address
        self.state = state
        self._environment = {
            "ANSIBLE_COLLECTIONS_PATH": str(base / "collections"),
            "ANSIBLE_HOME": str(self._directory),
            "ANSIBLE_LOCAL_TEMP": str(self._directory / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(self._directory / "tmp"),
            "ANSIBLE_ASYNC_DIR": str(self._directory / "async"),
            "ANSIBLE_CONFIG": str(base / "collections/ansible_collections/gpuops/restore/examples/ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "LC_ALL": "C.UTF-8",
        }

    def beside(self, name: str) -> Plays:
        """The same with a state directory of its own, for what runs at the same time."""
        found = Plays(self._runner, self._base, self._address, self._base / f"state-{name}")
        found._directory = self._base / f"ansible-{name}"
        found.prepare()
        return found

    def prepare(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "restore_become": False,
            "checkpoint_become": False,
            "restore_node_address": str(self._address),
            "restore_node_namespace": NAMESPACE,
            "restore_node_staging_dir": str(self.state),
            "restore_node_dependency_source": "none",
            # A suspended process does not hear TERM: the usual ten seconds would be waited for nothing.
            "restore_node_grace_seconds": 1,
        }
        # JSON is YAML.
        self._inventory.write_text(json.dumps({"all": {"hosts": {HOST: variables}}}, indent=1))

    @property
    def _inventory(self) -> pathlib.Path:
        return self._directory / "inventory.yml"

    def playbook(self, name: str, workload: dict[str, Any], seconds: float, **variables: object) -> Play:
        """Run gpuops.restore.<name> for one workload; a failed play is an answer too."""
        return self.result(self._runner.run(self.command(name, workload, variables), seconds, **self._options))

    def window(self, variables: dict[str, object], seconds: float) -> Play:
        """Run gpuops.restore.maintenance with these variables, the selection among them."""
        path = self._directory / "window.yml"
        path.write_text(json.dumps(variables, indent=1))
        playbook = [sys.executable, "-m", "ansible.cli.playbook", "-i", str(self._inventory), "-e", f"@{path}"]
        return self.result(self._runner.run([*playbook, "gpuops.restore.maintenance"], seconds, **self._options))

    def start(self, name: str, workload: dict[str, Any], **variables: object) -> subprocess.Popen[str]:
        """The same in the background; give the end of it to ``result``."""
        return self._runner.start(self.command(name, workload, variables), environment=self._environment)

    @property
    def _options(self) -> dict[str, Any]:
        return {"check": False, "environment": self._environment}

    def command(self, name: str, workload: dict[str, Any], variables: dict[str, object]) -> list[str]:
        path = self._directory / f"{name}-{workload['name']}.yml"
        path.write_text(json.dumps({"restore_node_workloads": [workload], **variables}, indent=1))
        playbook = [sys.executable, "-m", "ansible.cli.playbook", "-i", str(self._inventory)]
        return [*playbook, "-e", f"@{path}", f"gpuops.restore.{name}"]

    def result(self, done: Done) -> Play:
        recap = RECAP.search(done.output)
        if recap is None:
            raise StepError(f"ansible-playbook gave no recap (status {done.status}): {done.text.strip()[-1500:]}")
        changed, failed = int(recap.group(2)), int(recap.group(3)) + int(recap.group(4))
        return Play(done.status == 0 and not failed, changed, done.seconds, "" if done.status == 0 else _message(done))

    def module(self, name: str, arguments: dict[str, Any], seconds: float) -> tuple[dict[str, Any], float]:
        """(what the module answered, seconds of its process); a failed module is an answer too.

        Run from its file with its options on standard input, which is Ansible's own way to debug one. The playbooks
        show that Ansible reaches it; so a call costs half a second instead of four.
        """
        options = {"address": str(self._address), "namespace": NAMESPACE, **arguments}
        given = json.dumps({"ANSIBLE_MODULE_ARGS": options})
        collections = pathlib.Path(self._environment["ANSIBLE_COLLECTIONS_PATH"])
        path = collections / "ansible_collections/gpuops/restore/plugins/modules" / f"{name}.py"
        places = [str(collections), self._runner.environment.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(places), "LC_ALL": "C.UTF-8"}
        command = [sys.executable, str(path)]
        done = self._runner.run(command, seconds, check=False, environment=environment, given=given)
        try:
            answer = dict(json.loads(done.output))
        except ValueError:
            raise StepError(f"{name} gave no answer (status {done.status}): {done.text.strip()[-1500:]}") from None
        answer["failed"] = bool(answer.get("failed"))
        return answer, done.seconds

    def receipt(self, name: str) -> dict[str, Any]:
        """What the playbook wrote about the restored workload, {} if nothing."""
        path = self.state / "receipts" / f"{NAMESPACE}--{name}.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def staged(self) -> list[str]:
        """Files in the state directory, but not the evidence of failures."""
        found = []
        for directory, directories, files in os.walk(self.state):
            relative = os.path.relpath(directory, self.state)
            if relative == ".":
                directories[:] = [name for name in directories if name != "debug"]
            found += [os.path.normpath(os.path.join(relative, name)) for name in files]
        return sorted(found)


def _message(done: Done) -> str:
    """The lines from the first fatal one to the recap."""
    text = done.output.split("PLAY RECAP")[0]
    where = text.find("fatal:")
    where = text.find("[ERROR]") if where < 0 else where
    return (text[where:] if where >= 0 else text[-2000:]).strip()[:3000] + "\n" + done.errors.strip()[:3000]
