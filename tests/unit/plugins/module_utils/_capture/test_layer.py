# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import layer, upperdir
from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import writer
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import messages, snapshots
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.containers import Container
from ansible_collections.gpuops.restore.plugins.module_utils._oci.image import Descriptor


def test_what_runs_is_never_mounted_a_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upper and work directory of a live overlay belong to one mount; the daemon gets it to read only."""
    given: dict[str, Any] = {}

    def diff(_client: object, lower: object, upper: object, *_unused: object) -> Descriptor:
        given.update(lower=lower, upper=upper)
        return Descriptor(writer.LAYER, "sha256:" + "1" * 64, 1)

    monkeypatch.setattr(snapshots, "diff", diff)
    options = [f"workdir={tmp_path}/work", f"upperdir={tmp_path}", "lowerdir=/b:/a", "index=off", "volatile"]
    live = messages.message("containerd.types.Mount", type="overlay", source="overlay", options=options)
    layer.write(object(), layer.Mounts(["view"], [live], []), copied=False)  # type: ignore[arg-type]
    (mount,) = given["upper"]
    assert list(mount.options) == [f"lowerdir={tmp_path}:/b:/a", "index=off", "ro"]
    assert list(live.options) == options


def test_names_that_only_a_copy_can_take() -> None:
    container = Container("c", "", {}, "", None, {}, "native", "c")
    found = upperdir.Survey(reserved=3, reserved_first="var/.wh.count")
    problem = layer.reserved(container, found)
    assert problem is not None and problem.code == "written_name_reserved"
    assert "3 files" in problem.message and "/var/.wh.count" in problem.message
    assert layer.reserved(container, found, uncopied=False) is None
    assert layer.reserved(container, upperdir.Survey()) is None
