# SPDX-License-Identifier: GPL-2.0-or-later
"""Many cases at once: kernels x kernels x configurations x machines x scenarios, and what came of each.

`plan` reads what is asked for, `oracle` says what a pair of kernels owes, `pool` runs cells beside each
other, `results` keeps them and joins what other machines found.
"""
