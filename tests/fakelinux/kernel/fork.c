/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <linux/kernel.h>

int fork_me(void)
{
	return 1;
}
