// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Goes on with the process that freeze.c kept: this one's memory is given up for it. Where that cannot begin,
 * its arguments are a program to run instead.
 *
 * Linked statically, without a C library, at an address that no other program has (ADDRESS of frozen.py).
 */
#include <fcntl.h>
#include <stddef.h>
#include <asm/prctl.h>
#include <asm/unistd.h>
#include <sys/mman.h>
#include <linux/prctl.h>

#include "frozen.h"

/* The end of user space with four levels of page tables (Documentation/arch/x86/x86_64/mm.rst). */
#define TASK_SIZE 0x7ffffffff000UL

extern const char __executable_start[], _end[];
static struct frozen frozen;
__attribute__((used)) char thaw_stack[PAGE] __attribute__((aligned(16)));

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall" : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static __attribute__((noreturn)) void give_up(const char *why, size_t length)
{
	call(__NR_write, 2, (long)why, length, 0, 0, 0);
	for (;;)
		call(__NR_exit_group, 127, 0, 0, 0, 0, 0);
}

#define GIVE_UP(why) give_up("luh-thaw: " why "\n", sizeof("luh-thaw: " why "\n") - 1)

static void map(const struct frozen_area *area, long file)
{
	int flags = MAP_PRIVATE | MAP_FIXED;

	/* All of it at once: what is read when it is needed would show in what a scenario measures. */
	flags |= area->offset ? MAP_POPULATE : MAP_ANONYMOUS | MAP_NORESERVE;
	if (call(__NR_mmap, area->start, area->size, area->protection, flags, area->offset ? file : -1,
		 area->offset) != (long)area->start)
		GIVE_UP("cannot map it");
}

#define LOAD(name) "mov %c[" #name "](%%rcx), %%" #name "\n\t"
#define AT(name) [name] "i"(offsetof(struct frozen_registers, name))

/* rcx and r11 are lost in the system call; flags and the floating point unit's state are a new program's. */
static __attribute__((noreturn)) void resume(const struct frozen_registers *to)
{
	__asm__ volatile(LOAD(rax) LOAD(rdi) LOAD(rsi) LOAD(rdx) LOAD(rbx) LOAD(rbp) LOAD(r12) LOAD(r13)
			 LOAD(r14) LOAD(r15) LOAD(rsp) "jmp *%c[rip](%%rcx)"
			 : : "c"(to), AT(rax), AT(rdi), AT(rsi), AT(rdx), AT(rbx), AT(rbp), AT(r12), AT(r13),
			     AT(r14), AT(r15), AT(rsp), AT(rip) : "memory");
	__builtin_unreachable();
}

/* stack: the arguments' number, the arguments, 0, the environment, 0: as the kernel leaves them. */
__attribute__((used, noreturn)) void thaw(long *stack)
{
	char **argv = (char **)(stack + 1), **environment = argv + stack[0] + 1;
	long file = call(__NR_open, (long)FROZEN_FILE, O_RDONLY | O_CLOEXEC, 0, 0, 0, 0);
	long first = (long)__executable_start, after = ((long)_end + PAGE - 1) & -PAGE;

	if (file < 0 || call(__NR_read, file, (long)&frozen, sizeof(frozen), 0, 0, 0) != sizeof(frozen) ||
	    frozen.magic != FROZEN_MAGIC) {
		call(__NR_execve, (long)argv[1], (long)(argv + 1), (long)environment, 0, 0, 0);
		GIVE_UP("cannot start another program");
	}
	call(__NR_prctl, PR_SET_NAME, (long)"luh-agent", 0, 0, 0, 0);
	call(__NR_munmap, 0, first, 0, 0, 0, 0);
	call(__NR_munmap, after, TASK_SIZE - after, 0, 0, 0, 0);
	for (uint64_t i = 0; i < frozen.count; i++)
		map(&frozen.areas[i], file);
	call(__NR_close, file, 0, 0, 0, 0, 0);
	call(__NR_arch_prctl, ARCH_SET_FS, frozen.registers.fs_base, 0, 0, 0, 0);
	resume(&frozen.registers);
}

/* On a stack of its own: the kernel's is given up too. */
__asm__(".globl _start\n"
	"_start:\n\t"
	"mov %rsp, %rdi\n\t"
	"lea thaw_stack+4096(%rip), %rsp\n\t"
	"call thaw");
