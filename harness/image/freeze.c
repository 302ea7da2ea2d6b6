// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * freeze FILE PROGRAM [ARGUMENT...]: runs a program until it reads from WAITS_ON, and keeps it in a file.
 *
 * What it was is what thaw.c goes on with, in another kernel: its memory, and its registers when it was about
 * to read. So it has one thread then, shares no memory, and has nothing open but the descriptors up to WAITS_ON.
 * Of this machine it must know nothing: it gets no vDSO, whose code is of this machine's kernel; what the C
 * library chooses by the CPU is the caller's business (GLIBC_TUNABLES). Addresses, the time and what is
 * random are the same each time, so that the file is.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "frozen.h"

/* PTRACE_O_TRACESYSGOOD */
#define SYSTEM_CALL 0x80
/* The length of syscall, and of rdtsc. */
#define INSTRUCTION 2
#define WAITS_ON 3
/* glibc's stack of a main thread grows; a frozen one has this much below it, or what is free there. */
#define STACK_BELOW (8 << 20)

static struct frozen frozen = { .magic = FROZEN_MAGIC };
static pid_t pid;
static int memory = -1;

/* The path of what the kernel shows of it; the next call's takes its place. */
static const char *shown(const char *name)
{
	static char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return path;
}

static int entries(const char *name, int from)
{
	DIR *folder = opendir(shown(name));
	struct dirent *entry;
	int count = 0;

	if (!folder)
		err(1, "%s", shown(name));
	while ((entry = readdir(folder)))
		count += entry->d_name[0] != '.' && atoi(entry->d_name) >= from;
	closedir(folder);
	return count;
}

/* What init gives to each agent: three descriptors of the console, and WAITS_ON. */
static void close_all(void)
{
	int null = open("/dev/null", O_RDONLY);

	if (null < 0 || dup2(null, WAITS_ON) < 0 || close_range(WAITS_ON + 1, ~0U, 0))
		err(1, "its descriptors");
}

/* What the C library remembers of the CPU has its number in it. */
static void stay_on_first_cpu(void)
{
	cpu_set_t all, first;

	if (sched_getaffinity(0, sizeof(all), &all))
		err(1, "its CPUs");
	CPU_ZERO(&first);
	for (int cpu = 0; !CPU_COUNT(&first); cpu++)
		if (CPU_ISSET(cpu, &all))
			CPU_SET(cpu, &first);
	if (sched_setaffinity(0, sizeof(first), &first))
		err(1, "its CPU");
}

static void start(char **argv)
{
	int status;

	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		close_all();
		stay_on_first_cpu();
		/* Containers often forbid this; the file is of as much use, and another one each time. */
		personality(ADDR_NO_RANDOMIZE);
		if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV) || ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			err(1, "cannot be traced");
		execv(argv[0], argv);
		err(1, "%s", argv[0]);
	}
	if (waitpid(pid, &status, 0) < 0 || !WIFSTOPPED(status))
		errx(1, "%s did not start", argv[0]);
	if (ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD))
		err(1, "PTRACE_SETOPTIONS");
}

static uint64_t peek(uint64_t address)
{
	errno = 0;
	uint64_t word = ptrace(PTRACE_PEEKDATA, pid, address, NULL);

	if (errno)
		err(1, "PTRACE_PEEKDATA");
	return word;
}

static void poke(uint64_t address, uint64_t word)
{
	if (ptrace(PTRACE_POKEDATA, pid, address, word))
		err(1, "PTRACE_POKEDATA");
}

static struct user_regs_struct registers(void)
{
	struct user_regs_struct all;

	if (ptrace(PTRACE_GETREGS, pid, NULL, &all))
		err(1, "PTRACE_GETREGS");
	return all;
}

/* What the kernel says to a new program (getauxval(3)): after its arguments and its environment. */
static void hide_machine(void)
{
	uint64_t at = registers().rsp;

	at += 8 * (peek(at) + 2);
	while (peek(at))
		at += 8;
	for (at += 8; peek(at) != AT_NULL; at += 16) {
		if (peek(at) == AT_SYSINFO_EHDR)
			poke(at, AT_IGNORE);
		for (int half = 0; peek(at) == AT_RANDOM && half < 16; half += 8)
			poke(peek(at + 8) + half, 0x0102030405060708ULL);
	}
}

static void answer(int place, uint64_t value)
{
	if (ptrace(PTRACE_POKEUSER, pid, place, value))
		err(1, "PTRACE_POKEUSER");
}

static void fill(uint64_t from, uint64_t to, uint64_t word)
{
	for (; from + sizeof(word) <= to; from += sizeof(word))
		poke(from, word);
}

/*
 * Makes what a system call said the same each time: the thread's number, chance, the time, and of files the
 * times and the number, which the loader tells libraries apart by.
 */
static void make_certain(const struct user_regs_struct *at)
{
	static uint64_t number;
	uint64_t status = at->orig_rax == __NR_newfstatat ? at->rdx : at->rsi;

	if ((long)at->rax < 0)
		return;
	switch (at->orig_rax) {
	case __NR_gettid:
	case __NR_set_tid_address:
		return answer(offsetof(struct user, regs.rax), 1);
	case __NR_getrandom:
		return fill(at->rdi, at->rdi + at->rax, 1);
	case __NR_clock_gettime:
		return fill(at->rsi, at->rsi + sizeof(struct timespec), 1);
	case __NR_stat:
	case __NR_fstat:
	case __NR_lstat:
	case __NR_newfstatat:
		poke(status + offsetof(struct stat, st_ino), ++number);
		fill(status + offsetof(struct stat, st_atim),
		     status + offsetof(struct stat, st_ctim) + sizeof(struct timespec), 1);
	}
}

/* The loader times itself by the CPU's counter, which is a fault here (PR_SET_TSC). */
static int is_rdtsc(const struct user_regs_struct *at, int signal)
{
	if (signal != SIGSEGV || (peek(at->rip) & 0xffff) != 0x310f)
		return 0;
	answer(offsetof(struct user, regs.rax), 1);
	answer(offsetof(struct user, regs.rdx), 0);
	answer(offsetof(struct user, regs.rip), at->rip + INSTRUCTION);
	return 1;
}

/* Until it is about to read from WAITS_ON. */
static void run(void)
{
	struct user_regs_struct at;
	int status, signal, with = 0, inside = 0;

	for (;;) {
		if (ptrace(PTRACE_SYSCALL, pid, NULL, with) || waitpid(pid, &status, 0) < 0)
			err(1, "it does not go on");
		if (!WIFSTOPPED(status))
			errx(1, "it ended with status %#x before it read", status);
		signal = WSTOPSIG(status);
		at = registers();
		with = 0;
		if (signal != (SIGTRAP | SYSTEM_CALL)) {
			with = is_rdtsc(&at, signal) ? 0 : signal;
			continue;
		}
		if (!inside && at.orig_rax == __NR_read && at.rdi == WAITS_ON)
			return;
		if (inside)
			make_certain(&at);
		inside = !inside;
	}
}

static void add(uint64_t start, uint64_t end, uint64_t protection)
{
	if (start == end)
		return;
	if (frozen.count == FROZEN_AREAS)
		errx(1, "it has more than %d areas of memory", FROZEN_AREAS);
	frozen.areas[frozen.count++] = (struct frozen_area){ start, end - start, 0, protection };
}

static void find_areas(void)
{
	FILE *maps = fopen(shown("maps"), "r");
	char line[4200], mode[5], name[4096];
	uint64_t start, end, last = 0;

	if (!maps)
		err(1, "%s", shown("maps"));
	while (fgets(line, sizeof(line), maps)) {
		name[0] = '\0';
		if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %4095s", &start, &end, mode, name) < 3)
			errx(1, "its areas: %s", line);
		if (mode[1] == 'w' && mode[3] == 's')
			errx(1, "it shares memory: %s", line);
		if (!strncmp(name, "[v", 2))
			continue;
		if (!strcmp(name, "[stack]"))
			add(end - STACK_BELOW > last ? end - STACK_BELOW : last, start,
			    PROT_READ | PROT_WRITE);
		add(start, end, (mode[0] == 'r') * PROT_READ | (mode[1] == 'w') * PROT_WRITE |
				(mode[2] == 'x') * PROT_EXEC);
		last = end;
	}
	fclose(maps);
}

static int holds_nothing(const char *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

/* Its pages, at the end of the file, if there is anything in them. */
static void keep(int file, struct frozen_area *area, off_t *end)
{
	char *content = malloc(area->size);
	uint64_t empty = 0, found;

	if (!content)
		err(1, "%lu bytes", area->size);
	for (found = 0; found < area->size; found += PAGE) {
		if (pread(memory, content + found, PAGE, area->start + found) != PAGE)
			memset(content + found, 0, PAGE); /* beyond the end of a file */
		empty += holds_nothing(content + found);
	}
	if (empty * PAGE < area->size) {
		area->offset = *end;
		if (pwrite(file, content, area->size, *end) != (ssize_t)area->size)
			err(1, "writing");
		*end += area->size;
	}
	free(content);
}

static void check(void)
{
	if (entries("task", 0) != 1)
		errx(1, "it has more than one thread");
	if (entries("fd", WAITS_ON + 1))
		errx(1, "it has something open");
}

static void freeze(const char *path)
{
	struct user_regs_struct all = registers();
	off_t end = PAGE;
	int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	memory = open(shown("mem"), O_RDONLY | O_CLOEXEC);
	if (file < 0 || memory < 0)
		err(1, "%s", path);
	for (uint64_t i = 0; i < frozen.count; i++)
		if (frozen.areas[i].protection)
			keep(file, &frozen.areas[i], &end);
	frozen.registers = (struct frozen_registers){
		.rax = all.orig_rax, .rdi = all.rdi, .rsi = all.rsi, .rdx = all.rdx,
		.rbx = all.rbx, .rbp = all.rbp, .r12 = all.r12, .r13 = all.r13, .r14 = all.r14,
		.r15 = all.r15, .rsp = all.rsp, .rip = all.rip - INSTRUCTION, .fs_base = all.fs_base,
	};
	if (pwrite(file, &frozen, sizeof(frozen), 0) != sizeof(frozen) || close(file))
		err(1, "writing %s", path);
}

int main(int argc, char **argv)
{
	_Static_assert(sizeof(frozen) <= PAGE, "the header is a page");
	if (argc < 3)
		errx(2, "usage: freeze FILE PROGRAM [ARGUMENT...]");
	start(argv + 2);
	hide_machine();
	run();
	check();
	find_areas();
	freeze(argv[1]);
	return kill(pid, SIGKILL);
}
