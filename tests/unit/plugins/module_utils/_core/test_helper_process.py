# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib
import os
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core import helper_process
from ansible_collections.gpuops.restore.plugins.module_utils._core.helper_process import Child, ChildEndedError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import driver_worker

pytestmark = pytest.mark.every_python

ECHO = """
import json, os, sys
for line in sys.stdin.buffer:
    message = json.loads(line)
    if "silent" in message:
        continue
    if "exit" in message:
        sys.stderr.write("last words")
        sys.exit(message["exit"])
    os.write(1, json.dumps({"got": message, "path": sys.path, "directory": os.getcwd()}).encode() + b"\\n")
"""


def module(directory: Path, text: str = ECHO, name: str = "gpuops_helper") -> ModuleType:
    """A module from a zip file, as Ansible brings modules to a node."""
    archive = directory / "modules.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr(f"{name}.py", text)
    sys.path.insert(0, str(archive))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(archive))
        sys.modules.pop(name, None)


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


@pytest.fixture
def child(tmp_path: Path) -> Child:
    # Imported, it must do nothing.
    text = "def main():\n    " + ECHO.replace("\n", "\n    ") + "\nif __name__ == '__main__':\n    main()\n"
    return Child(module(tmp_path, text), os.environ)


def test_the_source_of_a_module_from_a_zip_file_runs_in_another_process(child: Child) -> None:
    child.send({"number": 1})
    child.send({"text": "ä" * 100_000})
    first, second = child.receive(soon()), child.receive(soon())
    child.close()
    assert first is not None
    assert second is not None
    assert (first["got"], second["got"]) == ({"number": 1}, {"text": "ä" * 100_000})


def test_nothing_is_imported_from_the_working_directory(child: Child) -> None:
    child.send({})
    answer = child.receive(soon())
    child.close()
    assert answer is not None
    assert "" not in answer["path"]
    assert answer["directory"] == "/"


def test_a_file_is_as_good_as_a_zip_file() -> None:
    assert helper_process.source_of(driver_worker) == Path(str(driver_worker.__file__)).read_text(encoding="utf-8")


def test_a_module_without_source_is_refused() -> None:
    with pytest.raises(ImportError, match="cannot be had"):
        helper_process.source_of(ModuleType("made_up"))


def test_waiting_ends_at_the_deadline_and_the_helper_can_be_killed(child: Child) -> None:
    child.send({"silent": True})
    assert child.receive(time.monotonic()) is None
    assert child.kill()
    assert not os.path.exists(f"/proc/{child.pid}")


def test_a_helper_that_ends_leaves_its_last_words(child: Child) -> None:
    child.send({"exit": 3})
    with pytest.raises(ChildEndedError, match="exit status 3: last words"):
        child.receive(soon())
    with pytest.raises(ChildEndedError):
        child.send({"number": 1})
    child.close()


def test_an_idle_helper_goes_when_it_is_let_go(child: Child) -> None:
    child.close()
    assert not os.path.exists(f"/proc/{child.pid}")


def test_what_it_has_begun_is_finished_when_we_are_killed(tmp_path: Path) -> None:
    # The helper's standard input ends, as it does when our own process dies.
    done = tmp_path / "done"
    text = f"""
import sys
if __name__ == '__main__':
    sys.stdin.buffer.read()
    open({str(done)!r}, 'w').close()
"""
    child = Child(module(tmp_path, text), os.environ)
    child.send({})
    assert os.getsid(child.pid) == child.pid
    child.close()
    assert done.exists()
