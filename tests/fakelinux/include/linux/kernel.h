/* SPDX-License-Identifier: GPL-2.0-or-later */
int fork_me(void);
int make_memfd(void);
