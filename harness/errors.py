# SPDX-License-Identifier: GPL-2.0-or-later
"""Three families of errors, by whose fault it is.

Stages raise them; only `attempt.py` turns them into a verdict and only `cli.py` into an exit status.
"""

from __future__ import annotations


class HarnessError(Exception):
    """The root of everything that this project raises on purpose; never raised itself.

    message: one line that says what is wrong. hint: what the reader can do about it, or "".
    detail: further lines (a compiler's error, the console's last lines), shown below the message.
    """

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail


class UsageError(HarnessError):
    """The caller asked for something that cannot be: a wrong name, a malformed file. Exit status 2."""


class KernelError(HarnessError):
    """The kernel under test is at fault. Exit status 1."""


class PatchError(KernelError):
    """A patch does not apply."""


class ConfigError(KernelError):
    """An option that was asked for is not in the final configuration."""


class BuildError(KernelError):
    """The kernel does not compile."""


class BootError(KernelError):
    """The kernel does not reach the agent on its first boot."""


class CrashError(KernelError):
    """The kernel died, hung or rebooted after it had been up, or during the kexec."""


class InfraError(HarnessError):
    """The harness or the machine that it runs on failed: QEMU, disk, network, agent. Exit status 3."""


class DeadlineError(InfraError):
    """A wait for something other than the kernel under test outlived its deadline."""
