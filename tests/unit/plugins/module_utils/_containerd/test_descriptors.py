# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""proto/generate: the generated file is what the .proto files say. It needs grpcio-tools, as development does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import descriptors

pytestmark = pytest.mark.every_python

HERE = Path(descriptors.__file__).resolve().parent
ROOT = HERE.parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The script, its .proto files and the generated file, where they may be changed."""
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    target = tmp_path / "plugins" / "module_utils" / "_containerd"
    target.mkdir(parents=True)
    shutil.copy(HERE / "descriptors.py", target)
    return tmp_path


def generate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "proto" / "generate"), *arguments], capture_output=True, text=True, check=False
    )


def test_the_generated_file_is_up_to_date() -> None:
    done = generate(ROOT, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "up to date" in done.stdout


def test_a_changed_proto_is_found_and_then_written(copy: Path) -> None:
    proto = copy / "proto" / "containerd" / "version.proto"
    generated = copy / "plugins" / "module_utils" / "_containerd" / "descriptors.py"
    before = generated.read_bytes()
    proto.write_text(proto.read_text(encoding="utf-8").replace("string revision = 2", "string revision = 3"))
    done = generate(copy, "--check")
    assert done.returncode == 1 and "differs" in done.stderr
    assert generated.read_bytes() == before
    assert generate(copy).returncode == 0
    assert generated.read_bytes() != before
    assert generate(copy, "--check").returncode == 0


def test_a_comment_changes_nothing(copy: Path) -> None:
    proto = copy / "proto" / "containerd" / "version.proto"
    proto.write_text(proto.read_text(encoding="utf-8") + "\n// a comment\n", encoding="utf-8")
    assert generate(copy, "--check").returncode == 0


def test_a_proto_that_does_not_compile(copy: Path) -> None:
    (copy / "proto" / "containerd" / "version.proto").write_text("syntax = ", encoding="utf-8")
    done = generate(copy, "--check")
    assert done.returncode not in (0, 2) and "refused" in done.stderr


def test_a_lost_generated_file_is_found(copy: Path) -> None:
    (copy / "plugins" / "module_utils" / "_containerd" / "descriptors.py").unlink()
    assert generate(copy, "--check").returncode == 1
