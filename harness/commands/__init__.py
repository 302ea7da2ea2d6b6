# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of `luh`, a module each: `add` gives the parser its words, `run` does it and returns a status.

What several commands say in the same words is in `kernels` (which kernel), `machines` (which machine) and
`output` (how it is shown). Imports that cost time are made inside `run`, so that `luh --help` and a misspelt
word cost nothing.
"""
