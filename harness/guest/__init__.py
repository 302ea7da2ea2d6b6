# SPDX-License-Identifier: GPL-2.0-or-later
"""The host under test as scenarios see it: a session for each boot, and objects that live in it."""
