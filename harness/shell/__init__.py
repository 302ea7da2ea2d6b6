# SPDX-License-Identifier: GPL-2.0-or-later
"""A person in front of a machine: prompts, the terminals behind them, and the way in for gdb.

`prompt` is Python with the agent's API; `attach` joins this terminal with another one; `gdb` has the words
for gdb; `keys` makes what an SSH server in the guest needs; `start` boots a machine for all that.
"""
