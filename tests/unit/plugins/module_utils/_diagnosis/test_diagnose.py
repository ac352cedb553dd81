# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the diagnosis: real failures, their relatives, disturbed copies, and lines that mean nothing."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._criu.log import error_lines
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis.diagnose import TABLE, diagnose, matching

DATA = Path(__file__).parents[3] / "data"


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


FACTS = read("failures.jsonl")
VARIANTS = read("log_variants.jsonl")

# id of the real failure: (our kind, outcome)
EXPECTED = {
    "moby-content-exists": ("content-exists", "terminal"),
    "ctd-image-content-not-ok": ("checkpoint-index-warning", "unknown"),
    "ctd-media-type-not-found": ("checkpoint-media-type", "terminal"),
    "docker-initpid-missing": ("docker-init-pid", "terminal"),
    "runtime-no-cr-support": ("runtime-without-criu", "terminal"),
    "cuda-device-map-invalid": ("cuda-device-map", "terminal"),
    "cuda-partial-passthrough": ("cuda-partial-passthrough", "terminal"),
    "nccl-nvls-multicast": ("nccl-nvls-multicast", "terminal"),
    "cuda-gb10-801": ("cuda-not-supported", "terminal"),
    "cgroup-unseizable": ("cgroup-unseizable", "terminal"),
    "cuda-nvml-fd-195": ("nvidia-fd-open", "terminal"),
    "link-remap-leftover-exists": ("link-remap-exists", "terminal"),
    "disk-full-debug-log": ("disk-full", "retryable"),
    "tmpfs-tar-busybox": ("tar-not-gnu", "terminal"),
    "ghost-limit": ("ghost-limit", "terminal"),
    "inet-socket-options": ("inet-socket-options", "terminal"),
    "io-uring": ("io-uring", "terminal"),
    "iptables-restore-not-installed": ("iptables-missing", "terminal"),
    "selinux-transport-socket": ("lsm-transport-socket", "terminal"),
    "inotify-overlay-handle": ("inotify-overlay-handle", "terminal"),
    "link-remap-overlay-lower": ("link-remap-overlay", "terminal"),
    "ubuntu-overlay-mount-id": ("overlay-mount-id", "terminal"),
    "runc-rootless": ("runc-rootless", "terminal"),
    "podman-needs-root": ("engine-needs-root", "terminal"),
    "pidns-without-init": ("pidns-without-init", "terminal"),
    "predump-too-many-files": ("predump-open-files", "terminal"),
    "crio-cr-not-available": ("engine-checkpoint-disabled", "terminal"),
    "cpuset-empty-enospc": ("cgroup-cpuset-empty", "terminal"),
    "cg-move-bad-fd": ("cgroup-move-bad-fd", "terminal"),
    "cuda-driver-lib-version-mount": ("driver-library-missing", "terminal"),
    "cuda-device-ordinal-nvidia1": ("gpu-device-node-missing", "terminal"),
    "dev-shm-link-remap-missing": ("shm-link-remap-missing", "terminal"),
    "iptables-second-restore": ("iptables-second-restore", "terminal"),
    "iptables-nft-chain-busy": ("iptables-chain-busy", "terminal"),
    "vdso-compat-buffer": ("vdso-compat-size", "terminal"),
    "podman-process-label": ("podman-process-label", "terminal"),
    "enomem-prot-none": ("memory-overcommit", "terminal"),
    "anon-vma-enomem": ("memory-short", "retryable"),
    "stale-checkpoint-pod-spec": ("mount-target-missing", "terminal"),
    "mntv2-copy-sharing": ("mount-sharing", "terminal"),
    "net-link-exists": ("net-link-exists", "terminal"),
    "pid-file-exists": ("pid-exists", "retryable"),
    "rseq-segv": ("segv-after-restore", "terminal"),
    "cuda-insufficient-driver": ("cuda-driver-too-old", "terminal"),
    "cuda-op-not-permitted-persistence": ("cuda-toggle-denied", "terminal"),
    "cuda-native-device-path-lost": ("cuda-device-node-lost", "terminal"),
    "nft-inet-unsupported": ("nftables-inet", "terminal"),
    "sockopt-kernel-616": ("inet-socket-options", "terminal"),
    "podman-log-driver-none": ("podman-log-missing", "terminal"),
    "tty-no-master-runc": ("tty-master-outside", "terminal"),
    "cuda-pause-devices-frozen-cgroup": ("cuda-frozen-task", "retryable"),
    "seccomp-filter-unsupported": ("seccomp-filters", "terminal"),
    "xsave-sapphire-rapids": ("cpu-xsave-area", "terminal"),
    "ptrace-no-cap": ("ptrace-denied", "terminal"),
    "posix-timer-leader-vtid": ("timer-notify-thread", "terminal"),
    "proc-children-missing": ("proc-children-missing", "terminal"),
    "timens-nested-exec": ("time-namespace-of-exec", "terminal"),
    "anon-hugepages": ("huge-pages", "terminal"),
    "hugetlb-predump-loop": ("huge-pages-in-parent", "terminal"),
    "tcp-ip-changed": ("tcp-address-changed", "terminal"),
    "criu-ns-tty-group": ("tty-group", "terminal"),
    "tcp-connect-back-eaddrnotavail": ("tcp-ports-in-use", "retryable"),
    "cg-unified-not-restored": ("cgroup-unified", "terminal"),
    "prctl-static-pie": ("memory-bounds-refused", "terminal"),
    "restore-image-differs": ("rootfs-other-image", "terminal"),
    "ctd-cri-base-image-ref": ("base-image-unnamed", "terminal"),
    "ctr-restore-tty": ("tty-detached", "terminal"),
    "ctr-task-created-not-deletable": ("task-created-left", "terminal"),
}
#: The same failure, reported twice.
TWICE = {"sockopt-kernel-616": "inet-socket-options"}

BENIGN = [json.loads(line) for line in (DATA / "benign.jsonl").read_text(encoding="utf-8").splitlines()]

# Of two that match the same line with the same rank, the first stands earlier in the table. Why it is right:
PREFERRED = {
    ("cgroup-move-bad-fd", "cgroup-restore"): "the error number tells more than that a task was not moved",
    ("criu-not-found", "criu-too-old"): "without CRIU there is no version to check",
    (
        "driver-library-missing",
        "bind-source-missing",
    ): "a library of a driver's version needs the driver, not a mapping",
    ("driver-library-missing", "file-missing"): "as above",
    ("gpu-device-node-missing", "bind-source-missing"): "a GPU's node needs the GPU, not a mapping",
    ("gpu-device-node-missing", "file-missing"): "as above",
    ("io-uring", "device-fd-open"): "the descriptor's name tells what it is",
    ("memory-overcommit", "memory-mapping"): "ENOMEM tells why it could not be mapped",
    ("nvidia-fd-open", "device-fd-open"): "the device's number tells what it is",
    ("vdso", "criu-missing-features"): "the probe's name tells which feature",
}
# The same where the first one's line comes earlier in the log.
EARLIER = {
    ("cuda-frozen-task", "cuda-lock-failed"): "the call that was interrupted comes before its verdict",
    ("cuda-plugin-device-mapping", "mapping-unsupported"): "the plugin is asked first",
    ("nftables-inet", "nftables-lock"): "nft's own line comes before CRIU's verdict",
}

MEANINGLESS = [
    "Error (criu/util.c:999): something never heard of",
    "Error (criu/cr-restore.c:2470): Restoring FAILED.",
    "(00.344246) Error (criu/cr-dump.c:2111): Dumping FAILED.",
    "criu failed: type NOTIFY errno 0",
    "OCI runtime restore failed: criu failed: type NOTIFY errno 0\nlog file: /run/x/restore.log: unknown",
    "Error (criu/mem.c:1349): `- Can't open vma",
    "Error (criu/cgroup.c:1970): cg: cgroupd: recv req error: Connection reset by peer",
    "Error (criu/cr-dump.c:1674): Dump files (pid: 406) failed with -1",
    "Warn  (criu/kerndat.c:1103): $XDG_RUNTIME_DIR not set. Cannot find location for kerndat file",
    "(00.0) Warn  (criu/kerndat.c:1200): Can't keep kdat cache on non-tempfs",
    "Warn  (criu/files-reg.c:1881): Can't link  -> ./dev/shm/link_remap.5",
    "Warn  (criu/files-reg.c:1600): Couldn't find any program headers for file with fd 17",
    "Warn  (criu/fsnotify.c:282): fsnotify: The 0x000007 inotify events will be dropped",
    "Warn  (cuda_plugin.c:595): cuda_plugin: check that cuda-checkpoint is present in $PATH",
    "Warn  (compel/arch/x86/src/lib/infect.c:281): Will restore 1241 with interrupted system call",
    "Warn  (criu/libnetlink.c:54): ERROR -17 reported by netlink",
    "Warn  (compel/src/lib/infect.c:133): Unable to interrupt task: 69 (Operation not permitted)",
    "(00.007122)      1: File usr/lib/locale/C.utf8/LC_PAPER could only be validated with file size",
    "(00.007122) Running iptables-restore -w for iptables-restore -w",
    "(00.007122)  12: cg: Move into 3",
    "(00.007122) \tDumping ghost file for fd 3 id 0x11",
    "(00.007122) Found external socket for fd 12, nothing to do",
    "Restore finished successfully. Tasks resumed.",
    "rpc error: code = Unknown desc = exit status 1",
    "",
]


def test_every_fact_has_an_expectation() -> None:
    assert len(FACTS) == 43 + 25
    assert set(EXPECTED) == {fact["id"] for fact in FACTS}


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact["id"])
def test_real_failure(fact: dict[str, Any]) -> None:
    for where in (fact["where"], None):
        found = diagnose(fact["lines"], where)
        assert (found.kind, found.outcome) == EXPECTED[fact["id"]]
        assert found.matched
        assert found.category == fact["kind"]
        assert found.line in fact["lines"]
        assert list(found.errors) == fact["lines"]


def test_distinct_failures_have_distinct_diagnoses() -> None:
    found = [diagnose(fact["lines"], fact["where"]) for fact in FACTS if fact["id"] not in TWICE]
    assert len({each.kind for each in found}) == len(found)
    assert len({each.cause for each in found}) == len(found)
    assert len({each.remedy for each in found}) >= len(found) - 2


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant["kind"])
def test_relative(variant: dict[str, Any]) -> None:
    for where in {variant["where"], None}:
        assert diagnose(variant["lines"], where).kind == variant["kind"]


def test_relatives_through_a_log_file(tmp_path: Path) -> None:
    # What CRIU itself writes must survive the log reader; messages of other layers do not come from its log.
    path = tmp_path / "restore.log"
    checked = 0
    for variant in VARIANTS:
        own = r"\b(Error|Warn) +\(|^iptables|^line \d|^tar:|^Busy|^Another"
        if not all(re.search(own, line) for line in variant["lines"]):
            continue
        path.write_text("(00.1) Version: 4.1\n" + "\n".join(variant["lines"]) + "\n(00.2) end\n", encoding="utf-8")
        assert diagnose(error_lines(str(path))).kind == variant["kind"]
        checked += 1
    assert checked >= 90


def test_every_entry_is_hit() -> None:
    hit = {diagnose(each["lines"], each["where"]).kind for each in [*FACTS, *VARIANTS]}
    assert {each.kind for each in TABLE} == hit
    assert len(VARIANTS) >= 50


def test_table_is_well_formed() -> None:
    for texts in ([each.kind for each in TABLE], [each.cause for each in TABLE]):
        assert len(set(texts)) == len(texts)
    for each in TABLE:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", each.kind)
        assert each.outcome in {"retryable", "terminal", "unknown"}
        assert each.cause.endswith(".")
        assert each.remedy.endswith(".")
        assert each.any_of
        # A pattern that matches the empty line or a bare verdict would match everything.
        for pattern in (*each.any_of, *each.also):
            assert not pattern.search("")
            assert not pattern.search("Error (criu/cr-restore.c:2470): Restoring FAILED.")


@pytest.mark.parametrize("line", MEANINGLESS)
def test_meaningless_line(line: str) -> None:
    for where in (None, "dump", "restore", "cuda", "containerd"):
        found = diagnose([line], where)
        assert not found.matched
        assert found.kind == "unknown"
        assert found.outcome == "unknown"
        assert "log" in found.remedy


@pytest.mark.parametrize("line", BENIGN)
def test_benign_and_unrelated_lines_have_no_cause(line: str) -> None:
    for where in (None, "dump", "restore", "cuda", "containerd"):
        found = diagnose([line], where)
        assert not found.matched, found.kind
        assert found.outcome == "unknown"


def test_benign_lines_do_not_hide_a_failure() -> None:
    assert len(BENIGN) >= 60
    for fact in FACTS:
        if fact["id"] not in ("net-link-exists", "segv-after-restore"):
            found = diagnose([*BENIGN, *fact["lines"], *BENIGN], fact["where"])
            assert found.kind == EXPECTED[fact["id"]][0]


def test_of_several_kinds_the_right_one_wins() -> None:
    """What matches more than one kind is known, pair by pair; the lower rank needs no reason, it says more."""
    several, pairs = 0, {}
    for each in [*FACTS, *VARIANTS]:
        first, *others = matching(each["lines"], each["where"])
        several += bool(others)
        for rank, at, kind in others:
            why = "rank" if first[0] < rank else "line" if first[1] < at else "order"
            pairs.setdefault(why, set()).add((first[2], kind))
    print({why: len(found) for why, found in pairs.items()}, f"in {several} of {len(FACTS) + len(VARIANTS)}")
    assert pairs["order"] == set(PREFERRED)
    assert pairs["line"] == set(EARLIER)
    assert len(pairs["rank"]) <= 29
    assert several <= 56


def test_unknown_errors_are_kept_raw() -> None:
    found = diagnose(["(00.1) 1: Error (criu/util.c:9): never heard of", "(00.2) progress", "Warn  (a.c:1): hm"])
    assert found.errors == ("Error (criu/util.c:9): never heard of", "Warn  (a.c:1): hm")
    assert diagnose([]).errors == ()
    assert diagnose([]).cause != found.cause


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact["id"])
def test_noise_does_not_change_the_diagnosis(fact: dict[str, Any]) -> None:
    before = [line for line in MEANINGLESS if line.startswith(("Warn", "(00", "Error (criu/util.c:999)"))]
    before = [line for line in before if "netlink" not in line]
    after = [
        "Error (criu/cr-restore.c:1517): 4715 killed by signal 9: Killed",
        "Error (criu/cr-restore.c:2557): Restoring FAILED.",
        "criu failed: type NOTIFY errno 0",
    ]
    assert diagnose([*before, *fact["lines"], *after], fact["where"]).kind == EXPECTED[fact["id"]][0]


def test_root_cause_wins_over_earlier_consequences() -> None:
    lines = [
        "(00.1) Error (criu/cr-restore.c:1517): 4715 killed by signal 9: Killed",
        "(00.1) 12: Error (criu/filesystems.c:455): Can't restore tmpfs content",
        "(00.1) 12: Error (criu/files-reg.c:2153): File usr/lib/libc-2.31.so has bad build-ID",
    ]
    assert diagnose(lines).kind == "file-content-changed"
    assert diagnose(lines[:2]).kind == "tmpfs-content"
    assert diagnose(lines[:1]).kind == "killed-by-signal-9"


def test_also_needs_the_other_line() -> None:
    error = "Error (net.c:779): Can't restore link"
    assert diagnose([error]).kind == "net-link-failed"
    assert diagnose(["Warn  (libnetlink.c:54): ERROR -17 reported by netlink", error]).kind == "net-link-exists"


def test_where_limits_ambiguous_lines() -> None:
    assert diagnose(["invalid device ordinal"], "cuda").matched
    assert not diagnose(["invalid device ordinal"], "containerd").matched
    with pytest.raises(ValueError, match="where"):
        diagnose([], "elsewhere")


def test_evidence_is_bounded_and_clean() -> None:
    lines = [f"Error (a.c:{n}): never heard of {n} TOKEN=secret{n}" for n in range(500)]
    found = diagnose([*lines, "Error (b.c:1): File x has bad size 1 (expect 2) MY_KEY=hush " + "z " * 5000])
    assert found.kind == "file-content-changed"
    assert len(found.errors) == 40
    text = found.line + "".join(found.errors)
    assert "secret" not in text
    assert "hush" not in text
    assert len(text) < 41 * 420


def disturb(line: str, rng: random.Random) -> str:
    """The same message from another machine: other files, line numbers, ids, paths, pids, with a time stamp.

    Numbers that carry the meaning stay: errno and signal numbers, device majors, CUDA results, versions.
    """

    def digits(found: re.Match[str]) -> str:
        return "".join(rng.choice("123456789") for _ in found.group())

    def identifier(found: re.Match[str]) -> str:
        if found.group().lower().startswith("ffff"):
            return found.group()
        return "".join(rng.choice("0123456789abcdef") for _ in found.group())

    def segment(found: re.Match[str]) -> str:
        word = found.group(1)
        fixed = (
            *("nvidia", "cuda", "link_remap", "shm", "proc", "cpuset", "cgroup", "criu", "iptables", "netns"),
            *("init.pid", "last_pid", "descriptors.json", "containerd.sock", "userdata", "ctr.log", "unified"),
            *("children", "anon_hugepage", "hugetlb.", "io.max"),
        )
        if any(each in word.lower() for each in fixed) or re.fullmatch(r"dev|ns|net|bin|run|tmp|\W*", word):
            return found.group()
        return "/" + "".join(rng.choice("abcdefgh") if c.isalnum() else c for c in word)

    line = re.sub(r"(?<=\.c:)\d+", digits, line)
    line = re.sub(r"\((?:criu|compel/src/lib)/(?=[\w-]+\.c:)", lambda found: rng.choice(["(", found.group()]), line)
    line = re.sub(r"(?<![\w.])(?:0x)?\b[0-9a-f]{12,64}\b", identifier, line)
    line = re.sub(r"(?<=sha256:)[0-9a-f]+", identifier, line)
    # Absolute paths only: "checkpoint/restore" is a phrase.
    path = r"(?<![\w/])\.{0,3}(?:/[\w.*@-]+)+"
    line = re.sub(path, lambda found: re.sub(r"/([A-Za-z][\w.-]*)", segment, found.group()), line)
    meaning = r"(?<![\w.:/>-])(?<!signal )(?<!-> )(?<!code )(?<!Errno )"
    line = re.sub(meaning + r"\d{2,}(?![\w.:%/]|-bit)", digits, line)
    line = re.sub(r"(?<=process ID )\d+|(?<=mount=)\d+|(?<=link_remap\.)\d+|(?<=nvidia)\d\b", digits, line)
    # What CRIU says with a stamp and not as an error is progress; other programs know no stamps.
    own = re.match(r"(?:pie: ?\d+: )?(?:Error|Warn) +\(", line)
    return rng.choice(["", "(00.029087) ", "(117.02908)  4711: "]) + line if own else line


@pytest.mark.parametrize("seed", range(8))
def test_disturbed_failures_keep_their_diagnosis(seed: int) -> None:
    rng = random.Random(seed)
    changed = 0
    for fact in FACTS:
        lines = [disturb(line, rng) for line in fact["lines"]]
        changed += lines != fact["lines"]
        assert diagnose(lines, fact["where"]).kind == EXPECTED[fact["id"]][0], lines
    for variant in VARIANTS:
        lines = [disturb(line, rng) for line in variant["lines"]]
        assert diagnose(lines, variant["where"]).kind == variant["kind"], lines
    assert changed > 45


def test_diagnosis_of_selected_lines_equals_that_of_the_whole_log(tmp_path: Path) -> None:
    lines = [f"(00.{n:06}) {n}: Opening file {n}" for n in range(3000)]
    lines.insert(
        1500,
        "(00.5) 7: Error (criu/sk-inet.c:1): inet: Can't bind inet socket (id 2): Address already in use",
    )
    log = tmp_path / "restore.log"
    log.write_text("\n".join(lines), encoding="ascii")
    whole, selected = diagnose(lines), diagnose(error_lines(str(log)))
    assert whole == selected
    assert selected.kind == "address-in-use"


def test_errors_that_criu_survives_explain_nothing() -> None:
    lines = [
        "(00.000123) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted",
        "(00.009488) Error (criu/cgroup.c:1998): cg: cgroupd: recv req error: No such file or directory",
    ]
    assert not diagnose(lines, "restore").matched
    damaged = [*lines, "(00.002243) Error (criu/image.c:558): Magic doesn't match for core-1.img"]
    assert "Magic" in diagnose(damaged, "restore").line
