# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines, disks, networks and people that break while a run is under way."""
