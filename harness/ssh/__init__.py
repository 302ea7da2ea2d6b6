# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines elsewhere, reached by SSH.

`target` is a real machine that really kexecs, in the place of machine/qemu.py; `launcher` is a program in the
place of QEMU, which runs QEMU on another machine. Both rest on `connection` and on `depot`, the files there.
"""
