# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which layers a node's root has, and what stands in them."""

from __future__ import annotations

import pathlib

import pytest
from gpuops_lab import root
from gpuops_lab.config import LabError


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Layers are not built, only named."""
    for program in ("CRIU", "PODMAN", *root.OTHERS):
        monkeypatch.delenv(f"GPUOPS_{program}", raising=False)
    monkeypatch.setattr(root, "_cached", lambda name, recipe, build: pathlib.Path("/cache", name))


def test_the_usual_criu_lies_above_the_root() -> None:
    assert root.lower_directories("1.7") == (f"/cache/criu-{root.USUAL_CRIU}", "/cache/root")
    assert root.lower_directories("2.1") == (f"/cache/criu-{root.USUAL_CRIU}", "/cache/containerd-2.1", "/cache/root")


def test_another_criu_by_the_environment_or_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUOPS_CRIU", "4.3")
    assert root.lower_directories("1.7")[0] == "/cache/criu-4.3"
    # The root's own.
    assert root.lower_directories("1.7", "4.1") == ("/cache/root",)


@pytest.mark.parametrize(
    ("program", "version", "layer"),
    [("RUNC", "1.4", "runc-1.4"), ("PYTHON", "3.14", "python3-3.14")],
)
def test_another_runtime_and_another_python_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, program: str, version: str, layer: str
) -> None:
    monkeypatch.setenv(f"GPUOPS_{program}", version)
    assert root.lower_directories("1.7") == (f"/cache/{layer}", f"/cache/criu-{root.USUAL_CRIU}", "/cache/root")
    monkeypatch.setenv(f"GPUOPS_{program}", "0.1")
    with pytest.raises(LabError, match="is unknown to the lab; choose one of"):
        root.lower_directories("1.7")


def test_another_podman_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert root.extra_directory("podman") == pathlib.Path("/cache/extra-podman")
    monkeypatch.setenv("GPUOPS_PODMAN", "6")
    assert root.extra_directory("podman") == pathlib.Path("/cache/podman-6")
    monkeypatch.setenv("GPUOPS_PODMAN", "1")
    with pytest.raises(LabError, match="is unknown to the lab; choose one of 5.8, 6"):
        root.extra_directory("podman")


def test_apt_takes_no_lock_of_the_root(tmp_path: pathlib.Path) -> None:
    """Two layers may be built at a time."""
    options = root._apt_options(tmp_path, ("forky",), "http://mirror", tmp_path / "status")
    assert "-oDebug::NoLocking=true" in options


@pytest.mark.parametrize(("version", "criu"), [("9.9", ""), ("1.7", "3.0")])
def test_what_is_not_known_is_refused(version: str, criu: str) -> None:
    with pytest.raises(LabError, match="is unknown to the lab; choose one of"):
        root.lower_directories(version, criu)


def test_the_topmost_layer_says_the_version(tmp_path: pathlib.Path) -> None:
    layer, below = tmp_path / "layer", tmp_path / "below"
    (layer / root.STATUS_DIRECTORY).mkdir(parents=True)
    (layer / root.STATUS_DIRECTORY / "criu").write_text("Package: criu\nSource: criu\nVersion: 4.2.1-1\n")
    (below / "var/lib/dpkg").mkdir(parents=True)
    (below / "var/lib/dpkg/status").write_text(
        "Package: criu\nStatus: install ok installed\nVersion: 4.1.1-1\n\nPackage: runc\nVersion: 1.1\n"
    )
    assert root.package_versions((layer, below), ("criu", "runc", "ip")) == {"criu": "4.2.1-1", "runc": "1.1"}
