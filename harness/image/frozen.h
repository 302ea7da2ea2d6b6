/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A process as a file: this header, and then the pages that it names. freeze.c writes it, thaw.c reads it. */
#include <stdint.h>

#define PAGE 4096
#define FROZEN_MAGIC 0x6e657a6f7266756cULL
#define FROZEN_AREAS 120

/* At a system call of three arguments: those, its number, what it keeps, and the thread's own area. */
struct frozen_registers {
	uint64_t rax, rdi, rsi, rdx, rbx, rbp, r12, r13, r14, r15, rsp, rip, fs_base;
};

/* offset: where in the file its pages are; 0 for pages that hold nothing. */
struct frozen_area {
	uint64_t start, size, offset, protection;
};

struct frozen {
	uint64_t magic;
	struct frozen_registers registers;
	uint64_t count;
	struct frozen_area areas[FROZEN_AREAS];
};
