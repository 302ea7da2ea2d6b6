// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is done to many pages at once; bulk.py calls it, and says what stands in for it. Tests compare the two.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define NR_CACHESTAT 451

static uint64_t mix(uint64_t seed, uint64_t page)
{
	uint64_t value = seed * 0xd1342543de82ef95 + page * 0x9e3779b97f4a7c15 + 0x6c7568206c326d31;

	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
	value = (value ^ value >> 27) * 0x94d049bb133111eb;
	return value ^ value >> 31;
}

static uint64_t word(uint64_t mixed, uint64_t number)
{
	return number * 0xa24baed4963ee407 ^ mixed;
}

void bulk_fill(uint64_t *at, uint64_t pages, uint64_t first, uint64_t seed)
{
	for (uint64_t page = 0; page < pages; page++) {
		uint64_t mixed = mix(seed, first + page);

		for (uint64_t number = 0; number < WORDS; number++)
			*at++ = word(mixed, number);
	}
}

/* How many pages hold the pattern, up to the first one that does not. */
uint64_t bulk_matching(const uint64_t *at, uint64_t pages, uint64_t first, uint64_t seed)
{
	for (uint64_t page = 0; page < pages; page++) {
		uint64_t mixed = mix(seed, first + page);

		for (uint64_t number = 0; number < WORDS; number++)
			if (*at++ != word(mixed, number))
				return page;
	}
	return pages;
}

/* A byte for each page of a file, 1 where it is in the page cache; 0, or the errno. Halves what is in part. */
int bulk_presence(int fd, uint64_t first, uint64_t count, uint8_t *present)
{
	uint64_t range[2] = { first * PAGE, count * PAGE }, statistics[5] = { 0 };

	if (syscall(NR_CACHESTAT, fd, range, statistics, 0))
		return errno;
	if (!statistics[0] || statistics[0] == count) {
		memset(present, !!statistics[0], count);
		return 0;
	}
	return bulk_presence(fd, first, count / 2, present) ?:
	       bulk_presence(fd, first + count / 2, count - count / 2, present + count / 2);
}
