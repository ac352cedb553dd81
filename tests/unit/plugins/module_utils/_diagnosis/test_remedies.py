# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remedies are followed as far as that needs no node: what they name is there, and is not refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._criu import config as criu_config
from ansible_collections.gpuops.restore.plugins.module_utils._criu.config import CriuOptions
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis import parts
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis.diagnose import TABLE
from ansible_collections.gpuops.restore.plugins.module_utils._oci import spec_namespaces

ROOT = Path(__file__).parents[5]
SENTENCES = {
    **{each.kind: f"{each.cause} {each.remedy}" for each in TABLE},
    **{part.kind: f"{part.depends} {part.look}" for part in parts.PARTS},
}
#: Options of CRIU: where they are meant to stand.
RESTORE, CAPTURE = "restore", "capture"
CRIU = {
    "network-lock=iptables": (CAPTURE,),
    "network-lock=nftables": (CAPTURE,),
    "force-irmap": (CAPTURE,),
    "timeout=60": (CAPTURE, RESTORE),
    "mntns-compat-mode": (CAPTURE, RESTORE),
    "enable-external-masters": (CAPTURE, RESTORE),
    "shell-job": (RESTORE,),
}
#: For other tools' captures, in the file that they read; values; and what is no option.
OTHER = {"link-remap", "ghost-limit", "auto", "true"}
COMMANDS = ("criu ", "ctr ", "nvidia-smi ")


def quoted() -> set[str]:
    return {name for sentence in SENTENCES.values() for name in re.findall(r"`([^`]+)`", sentence)}


def documented() -> set[str]:
    """Options of modules, their suboptions and choices, and codes."""
    found = {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}
    for folder in ("modules", "doc_fragments"):
        for path in (ROOT / "plugins" / folder).glob("*.py"):
            found.update(re.findall(r"^ *(\w+):", path.read_text(encoding="utf-8"), re.MULTILINE))
    return found | set(re.findall(r"`(\w+)`", (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")))


def test_what_a_remedy_names_is_there() -> None:
    known = documented()
    for name in quoted() - OTHER - set(CRIU):
        if not name.startswith(COMMANDS):
            option = name.partition(":")[0].partition(" ")[0]
            assert set(option.split(".")) <= known, name


@pytest.mark.parametrize("line", sorted(CRIU))
def test_options_of_criu_are_taken(line: str) -> None:
    assert line in quoted()
    if CAPTURE in CRIU[line]:
        assert criu_config.dump_lines([line]) == [line]
    if RESTORE in CRIU[line]:
        assert line in criu_config.render(CriuOptions(extra=[line]), None)


def test_values_of_options_are_taken() -> None:
    for name in quoted():
        option, _colon, value = name.partition(": ")
        if option == "criu.tcp" and value:
            assert f"tcp-{value}" in criu_config.render(CriuOptions(tcp=value), None)
        if option == "criu.manage_cgroups" and value:
            assert f"manage-cgroups={value}" in criu_config.render(CriuOptions(manage_cgroups=value), None)


def container(network: dict[str, Any] | None) -> dict[str, Any]:
    entries = [{"type": "pid"}, {"type": "mount"}, *([network] if network else [])]
    return {"linux": {"namespaces": entries}}


def test_network_is_proposed_only_where_it_is_taken() -> None:
    """A container of the node's network or of one of its own cannot be moved; one given by path can."""
    path = container({"type": "network", "path": "/run/netns/old"})
    assert spec_namespaces.choose(path, "/run/netns/new") is not None
    for spec in (container({"type": "network"}), container(None)):
        with pytest.raises(InputError) as refused:
            spec_namespaces.choose(spec, "/run/netns/new")
        assert refused.value.code == "network_unmovable"
    for kind, sentence in SENTENCES.items():
        # Where the namespace is missing, it was given by path.
        if "`network`" in sentence and kind not in ("netns-missing", "unknown-network"):
            assert "given by path" in " ".join(sentence.split()), kind


def test_nobody_is_sent_where_he_comes_from() -> None:
    for kind, sentence in SENTENCES.items():
        assert "stdout set" not in sentence, kind
        # The own configuration of a container that was restored here hides it; options reach both.
        if "runc.conf" in sentence and not kind.startswith("unknown-"):
            assert "`criu." in sentence and "with other tools" in sentence, kind
        if kind == "foreign-input":
            assert "input" in sentence and "output" not in sentence
