# SPDX-License-Identifier: GPL-2.0-or-later
"""Live-update scenarios: what a VM's owner is promised, and the proof that it is kept."""
