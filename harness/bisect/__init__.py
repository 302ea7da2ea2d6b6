# SPDX-License-Identifier: GPL-2.0-or-later
"""Which commit, patch or option breaks a scenario: searches over an Attempt, which know nothing of QEMU.

`odds` says how often a run has to be repeated, `judge` what a verdict means for a candidate, `history` lets
git choose among commits, `minimize` among options; `search` composes them, `state` keeps what was found, and
`account` says it.
"""
