// SPDX-License-Identifier: GPL-2.0-or-later
/* The pattern of pattern.py for many pages at once; bulk.py calls it, and tests compare the two. */
#include <stdint.h>

#define WORDS 512

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

void pattern_fill(uint64_t *at, uint64_t pages, uint64_t first, uint64_t seed)
{
	for (uint64_t page = 0; page < pages; page++) {
		uint64_t mixed = mix(seed, first + page);

		for (uint64_t number = 0; number < WORDS; number++)
			*at++ = word(mixed, number);
	}
}

/* How many pages hold the pattern, up to the first one that does not. */
uint64_t pattern_count(const uint64_t *at, uint64_t pages, uint64_t first, uint64_t seed)
{
	for (uint64_t page = 0; page < pages; page++) {
		uint64_t mixed = mix(seed, first + page);

		for (uint64_t number = 0; number < WORDS; number++)
			if (*at++ != word(mixed, number))
				return page;
	}
	return pages;
}
