/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <linux/kernel.h>

static int names = 1;

static int count(void)
{
	return names;
}

static int more(void)
{
	return count() + 1;
}

int make_memfd(void)
{
	return more();
}
