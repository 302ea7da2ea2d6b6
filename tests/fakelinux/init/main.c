/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <linux/kernel.h>

int start_kernel(void)
{
	return fork_me() + make_memfd();
}
