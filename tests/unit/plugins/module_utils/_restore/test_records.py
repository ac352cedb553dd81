# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Receipts and evidence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._restore import records as restore_records


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A state directory that is not there yet."""
    return str(tmp_path / "state")


def names(bundle: str) -> list[str]:
    return sorted(os.listdir(bundle))


def test_a_receipt_comes_back_as_it_was_written(root: str) -> None:
    assert restore_records.read_receipt(root, "k8s.io", "train") == {}
    restore_records.write_receipt(root, "k8s.io", "train", {"a": 1})
    restore_records.write_receipt(root, "k8s.io", "train", {"a": 2, "path": Path("/x")})
    assert restore_records.read_receipt(root, "k8s.io", "train") == {"a": 2, "path": "/x"}
    path = restore_records.receipt_path(root, "k8s.io", "train")
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert [os.stat(place).st_mode & 0o777 for place in (root, os.path.dirname(path))] == [0o700, 0o700]
    assert os.listdir(os.path.dirname(path)) == ["train.json"]


def test_containers_of_one_name_in_two_namespaces_have_two_receipts(root: str) -> None:
    for namespace in ("k8s.io", "tenant"):
        restore_records.write_receipt(root, namespace, "train", {"container": {"namespace": namespace}})
    for namespace in ("k8s.io", "tenant"):
        assert restore_records.read_receipt(root, namespace, "train")["container"]["namespace"] == namespace
    assert sorted(os.listdir(os.path.join(root, "receipts"))) == ["tenant--train.json", "train.json"]


def test_the_receipt_of_an_earlier_release_is_that_of_the_namespace_it_names(root: str) -> None:
    document = {"container": {"namespace": "tenant"}}
    restore_records.write_receipt(root, "k8s.io", "train", document)
    assert restore_records.read_receipt(root, "tenant", "train") == document
    assert restore_records.read_receipt(root, "k8s.io", "train") == {}
    assert restore_records.read_receipt(root, "other", "train") == {}
    restore_records.write_receipt(root, "other", "train", {"container": {"namespace": "other"}})
    assert restore_records.read_receipt(root, "tenant", "train") == document, "it is not another's to remove"
    restore_records.write_receipt(root, "tenant", "train", document)
    assert sorted(os.listdir(os.path.join(root, "receipts"))) == ["other--train.json", "tenant--train.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_receipt_that_is_none_counts_as_absent(root: str, text: str) -> None:
    restore_records.write_receipt(root, "k8s.io", "train", {})
    Path(restore_records.receipt_path(root, "k8s.io", "train")).write_text(text, encoding="utf-8")
    assert restore_records.read_receipt(root, "k8s.io", "train") == {}


def test_a_receipt_is_not_written_through_a_link(root: str, tmp_path: Path) -> None:
    restore_records.write_receipt(root, "k8s.io", "train", {"a": 1})
    target = tmp_path / "target"
    target.write_text("mine", encoding="utf-8")
    os.unlink(restore_records.receipt_path(root, "k8s.io", "train"))
    os.symlink(target, restore_records.receipt_path(root, "k8s.io", "train"))
    restore_records.write_receipt(root, "k8s.io", "train", {"a": 2})
    assert target.read_text(encoding="utf-8") == "mine"
    os.symlink(target, f"{restore_records.receipt_path(root, 'k8s.io', 'other')}.{os.getpid()}")
    with pytest.raises(OSError):
        restore_records.write_receipt(root, "k8s.io", "other", {})


def test_evidence_has_logs_output_and_what_failed(root: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "images").mkdir(parents=True)
    (work / "images" / "pages-1.img").write_bytes(b"secret")
    (work / "restore.log").write_text("log", encoding="utf-8")
    (work / "link").symlink_to("/etc/passwd")
    output = tmp_path / "out.log"
    output.write_text("words", encoding="utf-8")
    bundle = restore_records.keep_evidence(root, "train", 3, str(work), [str(output), "/none/out"])
    restore_records.write_failure(bundle, {"code": "x"})
    restore_records.write_failure(bundle, {"code": "y"})
    assert names(bundle) == ["failure.json", "out.log", "restore.log"]
    assert json.loads(Path(bundle, "failure.json").read_text(encoding="utf-8")) == {"code": "y"}
    assert {os.stat(os.path.join(bundle, name)).st_mode & 0o777 for name in names(bundle)} == {0o600}
    assert os.stat(bundle).st_mode & 0o777 == 0o700


def test_no_file_of_the_evidence_takes_the_place_of_another(root: str, tmp_path: Path) -> None:
    outputs = []
    for number, name in enumerate(("out.log", "out.log", "out.log", "failure.json", "restore.log")):
        (tmp_path / str(number)).mkdir()
        outputs.append(tmp_path / str(number) / name)
        outputs[-1].write_text(str(number), encoding="utf-8")
    work = tmp_path / "work"
    work.mkdir()
    (work / "restore.log").write_text("CRIU", encoding="utf-8")
    bundle = restore_records.keep_evidence(root, "train", 3, str(work), [str(path) for path in outputs])
    found = {name: Path(bundle, name).read_text(encoding="utf-8") for name in names(bundle)}
    assert found == {
        "restore.log": "CRIU",
        "out.log": "0",
        "out.log.2": "1",
        "out.log.3": "2",
        "failure.json.2": "3",
        "restore.log.2": "4",
    }


def test_only_the_end_of_a_long_output_is_kept(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_records, "_COPY_BYTES", 4)
    output = tmp_path / "out.log"
    output.write_text("0123456789", encoding="utf-8")
    bundle = restore_records.keep_evidence(root, "train", 3, str(tmp_path / "none"), [str(output)])
    assert Path(bundle, "out.log").read_text(encoding="utf-8") == "6789"


def test_the_last_bundles_of_a_workload_are_kept_and_those_of_others(root: str, tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    other = restore_records.keep_evidence(root, "train-2", 3, none, [])
    first, second, third = (restore_records.keep_evidence(root, "train", 2, none, []) for _n in range(3))
    assert sorted({first, second, third}) == [first, second, third], "within one second, too"
    left = sorted(os.listdir(os.path.join(root, "debug")))
    assert left == sorted(os.path.basename(path) for path in (other, second, third))
