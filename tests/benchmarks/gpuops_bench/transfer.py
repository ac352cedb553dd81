# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving checkpoints: staged on the node, written to an archive, taken in from one."""

from __future__ import annotations

import json

from gpuops_lab import workload

from gpuops_bench.bench import CONTENT, STATE, WARM, Bench, say
from gpuops_bench.measure import Comparison, Sample, pairs, peaks

OURS, THEIRS = "/tmp/bench-ours.tar", "/tmp/bench-ctr.tar"
CRIU = "application/vnd.containerd.container.criu.checkpoint.criu.tar"


def run(bench: Bench) -> list[Comparison]:
    found = []
    for mib in bench.sizes:
        reference = bench.checkpoint_of(mib)
        for compared in (_staging(bench, mib, reference), _export(bench, mib, reference), _import(bench, mib)):
            found += [each for each in (compared, peaks(compared)) if each]
        bench.timed(["rm", "-f", OURS, f"{OURS}.gpuops.json", THEIRS])
    return found


def _staging(bench: Bench, mib: int, reference: str) -> Comparison:
    """Against tar, which checks no digest and syncs nothing; so a sync is added to it."""
    blob = f"{CONTENT}/{_criu_digest(bench, reference).replace(':', '/')}"
    target = f"{STATE}/tar"

    def by_us() -> Sample:
        bench.module("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})
        bench.prepare_cache(WARM, 2 * mib)
        return bench.module("containerd_checkpoint_stage", {"checkpoint": reference})[1]

    def by_tar() -> Sample:
        bench.prepare_cache(WARM, 2 * mib)
        done = bench.timed(["sh", "-c", f"mkdir -p {target} && tar -xf {blob} -C {target} && sync -f {target}"])
        bench.timed(["rm", "-rf", target])
        return Sample(done.seconds, done.peak)

    say(f"staging {mib} MiB")
    return pairs(f"stage {mib} MiB", "tar -x and sync -f", bench.pairs, by_us, by_tar, say)


def _export(bench: Bench, mib: int, reference: str) -> Comparison:
    parameters = {"operation": "export", "name": reference, "path": OURS, "compression": "none", "force": True}

    def by_us() -> Sample:
        bench.timed(["rm", "-f", OURS])
        bench.prepare_cache(WARM, 2 * mib)
        return bench.module("containerd_checkpoint_archive", parameters)[1]

    def by_ctr() -> Sample:
        bench.timed(["rm", "-f", THEIRS])
        bench.prepare_cache(WARM, 2 * mib)
        return bench.ctr("images", "export", "--skip-manifest-json", THEIRS, reference)

    say(f"export {mib} MiB")
    return pairs(f"export {mib} MiB", "ctr images export", bench.pairs, by_us, by_ctr, say)


def _import(bench: Bench, mib: int) -> Comparison:
    """Each side takes in what it has written itself, into a namespace of its own without that content."""
    parameters = {"operation": "import", "name": f"gpuops.test/bench:{mib}", "path": OURS, "namespace": "bench-ours"}

    def by_us() -> Sample:
        bench.prepare_cache(WARM, 2 * mib)
        sample = bench.module("containerd_checkpoint_archive", parameters)[1]
        _empty(bench, "bench-ours")
        return sample

    def by_ctr() -> Sample:
        bench.prepare_cache(WARM, 2 * mib)
        done = bench.timed(["ctr", "-n", "bench-ctr", "images", "import", "--no-unpack", "--local", THEIRS])
        _empty(bench, "bench-ctr")
        return Sample(done.seconds, done.peak)

    say(f"import {mib} MiB")
    return pairs(f"import {mib} MiB", "ctr images import --no-unpack", bench.pairs, by_us, by_ctr, say)


def _criu_digest(bench: Bench, reference: str) -> str:
    rows = workload.ctr(bench.node, workload.NAMESPACE, "images", "ls", f"name=={reference}").splitlines()
    digest = next(word for word in rows[1].split() if word.startswith("sha256:"))
    index = json.loads(workload.ctr(bench.node, workload.NAMESPACE, "content", "get", digest))
    return str(next(child["digest"] for child in index["manifests"] if child["mediaType"] == CRIU))


def _empty(bench: Bench, namespace: str) -> None:
    for name in workload.ctr(bench.node, namespace, "images", "ls", "-q").split():
        workload.ctr(bench.node, namespace, "images", "rm", "--sync", name)
