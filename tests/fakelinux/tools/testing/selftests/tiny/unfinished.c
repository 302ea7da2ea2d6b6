// SPDX-License-Identifier: GPL-2.0-or-later
int nobody_wrote_this(void);

int main(void)
{
	return nobody_wrote_this();
}
