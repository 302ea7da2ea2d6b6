// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/tiny.h>

int main(void)
{
	return 0;
}
