#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# usage: merge_config.sh -Q -O DIRECTORY BASE FRAGMENT..., as the kernel's: later lines win.
set -e
output=$3
shift 3
cat "$@" >"$output/.merged"
make KCONFIG_ALLCONFIG="$output/.merged" O="$output" alldefconfig
