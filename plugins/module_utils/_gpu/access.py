# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a node's GPUs are reached: where the driver is, how long its calls may take, where processes are looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from .._host import cgroup
from . import devices, driver, driver_library, marks, nvml


@dataclass(frozen=True)
class GpuAccess:
    """What all steps that call the driver have in common. Times in seconds."""

    #: Root of the driver's installation; empty for the loader's path, and then ``driver_container``.
    driver_root: str = ""
    driver_container: str = driver_library.DRIVER_CONTAINER
    control_device: str = devices.CONTROL_DEVICE
    #: For all calls of the driver together.
    cuda_timeout: float = 600.0
    #: For a process to come to a rest.
    lock_timeout: float = 10.0
    proc: str = "/proc"
    cgroup_root: str = cgroup.ROOT
    #: Where restores that were begun are remembered.
    marks_root: str = field(default_factory=marks.default_root)
    #: Shared by all that were made from this one.
    session: nvml.Session = field(default_factory=nvml.Session, repr=False, compare=False)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> GpuAccess:
        """The options of a module that calls the driver; not all of them have all."""
        times: dict[str, Any] = {
            name: float(options[name]) for name in ("cuda_timeout", "lock_timeout") if name in options
        }
        return cls(driver_root=options["driver_root"] or "", **times)

    def limited_to(self, seconds: float) -> GpuAccess:
        """The same, for calls that have less time than the others."""
        return dataclasses.replace(self, cuda_timeout=min(seconds, self.cuda_timeout))

    def open_driver(self, deadline: float) -> AbstractContextManager[driver.Driver]:
        """The driver, initialised for a block. Raises what :func:`_gpu.driver.opened` raises."""
        return driver.opened(deadline, self.driver_root, self.driver_container)

    def read_nvml(self, seconds: float = nvml.SECONDS) -> nvml.Reading:
        """What NVML tells now; never raises for a node that has none of it."""
        return self.session.read(self.driver_root, seconds, self.driver_container)
