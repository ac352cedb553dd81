# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._streams import tar_reader
from ansible_collections.gpuops.restore.plugins.module_utils._streams.streams import ChunkSource, FileSource
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import END, entry, header, tar

pytestmark = pytest.mark.every_python

LIMITS = tar_reader.Limits(max_entries=50, max_total=10_000)


def names(data: bytes, limits: tar_reader.Limits = LIMITS) -> list[str]:
    return [member.name for member in tar_reader.members(ChunkSource([data]), limits, "The tar")]


def code(data: bytes, limits: tar_reader.Limits = LIMITS) -> str:
    with pytest.raises(InputError) as error:
        names(data, limits)
    assert error.value.message.endswith(".") and error.value.remedy
    return error.value.code


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return entry("pax", records, kind)


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return str(length).encode() + body


def test_sizes_in_base_256() -> None:
    block = bytearray(header("big"))
    block[124:136] = b"\x80" + (600).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert names(bytes(block) + bytes(1024) + END) == ["big"]
    assert code(bytes(block) + bytes(512)) == "tar_truncated"


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../x",
        "/etc/x",
        "a//b",
        "a/./b",
        "a\nb",
        "a\x1bb",
        "a\x7f",
        "..",
        "a/..",
        "x" * 256,
        "d/" * 40,
    ],
)
def test_unsafe_names(name: str) -> None:
    data = (entry(name) if len(name) <= 100 else pax(record("path", name)) + entry("short")) + END
    assert code(data) == "tar_unsafe_name"


def test_names_in_pax_records_are_checked_too() -> None:
    assert code(pax(record("path", "../x")) + entry("good") + END) == "tar_unsafe_name"
    assert code(pax(record("path", "a\0b")) + entry("good") + END) == "tar_unsafe_name"
    assert code(entry("L", b"../x\0", tarfile.GNUTYPE_LONGNAME) + entry("good") + END) == "tar_unsafe_name"
    assert code(header("x\xff").replace(b"\xc3\xbf", b"\xff\0") + END) != ""


@pytest.mark.parametrize("kind", [b"3", b"4", b"6", b"S", b"M", b"D", b"V", b"Z"])
def test_devices_and_other_special_entries(kind: bytes) -> None:
    assert code(entry("x", kind=kind) + END) == "tar_unsafe_type"


def test_sparse_files_in_pax_records() -> None:
    assert code(pax(record("GNU.sparse.major", "1")) + entry("x") + END) == "tar_unsafe_type"


def test_truncation_anywhere_is_found() -> None:
    whole = tar({"a": b"x" * 700, "b" * 200: b"y" * 100})
    end = whole.rindex(b"y") + 1
    for cut in [*range(1, end, 97), end, end + 100]:
        assert code(whole[:cut]) in ("tar_truncated", "tar_not_a_tar" if cut < 512 else "tar_truncated")


def test_truncated_files_are_found_without_reading_them(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(header("a", 1 << 40) + bytes(1000))
    with path.open("rb") as stream, pytest.raises(InputError) as error:
        list(tar_reader.members(FileSource(stream.fileno()), tar_reader.Limits(), "It"))
    assert error.value.code == "tar_truncated"


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"\x7fELF" + b"x" * 5000, bytes(100)])
def test_no_tar_at_all(data: bytes) -> None:
    assert code(data) == "tar_not_a_tar"


def test_damaged_headers_in_the_middle() -> None:
    assert code(entry("a", b"x") + b"garbage" * 200 + END) == "tar_header_invalid"


@pytest.mark.parametrize(
    "records",
    [
        b"9999999 path=x\n",
        b"x",
        b"11 path=ab",
        b"0 path=ab\n",
        b"-5 path=ab\n",
        record("size", "-1"),
        record("size", "0x10"),
        record("size", "9" * 19),
        record("path", "a") + record("path", "b"),
    ],
)
def test_damaged_pax_records(records: bytes) -> None:
    assert code(pax(records) + entry("x") + END) == "tar_header_invalid"


def test_extended_headers_are_bounded_before_they_are_read() -> None:
    assert code(header("pax", 1 << 40, tarfile.XHDTYPE) + bytes(1024)) == "tar_header_invalid"
    assert code(header("long", 1 << 30, tarfile.GNUTYPE_LONGNAME)) == "tar_header_invalid"
    assert code(pax(b"") * 10 + entry("x") + END) == "tar_header_invalid"
    assert code(pax(record("path", "x")) + END) == "tar_header_invalid"


def test_global_headers_may_comment_and_nothing_else() -> None:
    comment = pax(record("comment", "x"), tarfile.XGLTYPE)
    assert names(comment + entry("a") + END) == ["a"]
    assert code(pax(record("path", "x"), tarfile.XGLTYPE) + entry("a") + END) == "tar_header_invalid"


def test_directories_and_links_have_no_content() -> None:
    assert code(entry("d/", b"x" * 512, tarfile.DIRTYPE) + END) == "tar_header_invalid"


def test_entries_are_counted() -> None:
    assert code(b"".join(entry(str(number)) for number in range(51)) + END) == "tar_too_many_entries"
    assert len(names(b"".join(entry(str(number)) for number in range(50)) + END)) == 50


def test_sizes_are_summed_before_reading() -> None:
    assert code(entry("a", bytes(6000)) + header("b", 6000)) == "tar_too_large"


def test_data_behind_the_end() -> None:
    assert code(entry("a") + END + entry("b")) == "tar_trailing_data"
    assert code(entry("a") + bytes(2 << 20)) == "tar_trailing_data"
    assert names(entry("a") + bytes(10240)) == ["a"]
