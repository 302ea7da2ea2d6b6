# SPDX-License-Identifier: GPL-2.0-or-later
"""The Live Update Harness: builds, boots and live-updates Linux hosts, and proves what survived."""

__version__ = "0.1.0"
