// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A selftest of two stages, honest as it stands; the macros make it one that lies.
 *
 * STAYS: stage 1 keeps its session in the foreground. IDLE: stage 2 passes whatever there is. EXPECTED: what
 * stage 2 wants to find. REBOOTS: stage 1 reboots the host. FORGETS: stage 1 closes its session. SHORT: stage 2 reports less than it planned.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <unistd.h>

#ifndef EXPECTED
#define EXPECTED "as it was"
#endif
#ifndef NAME
#define NAME "two-stages"
#endif

#define CREATE_SESSION 0xba00
#define RETRIEVE_SESSION 0xba01
#define PRESERVE_FD 0xba40
#define RETRIEVE_FD 0xba41
#define FINISH 0xba42

struct session {
	unsigned int size;
	int fd;
	char name[64];
};

struct file {
	unsigned int size;
	int fd;
	unsigned long token;
};

static int open_session(unsigned int request)
{
	struct session session = { .size = sizeof(session), .name = NAME };
	int device = open("/dev/liveupdate", O_RDWR);
	int error = device < 0 || ioctl(device, request, &session);

	close(device);
	return error ? -1 : session.fd;
}

static int stage_1(void)
{
	struct file file = { .size = sizeof(file), .fd = memfd_create(NAME, 0), .token = 1 };
	int session = open_session(CREATE_SESSION);

	if (session < 0 || write(file.fd, "as it was", 10) != 10 || ioctl(session, PRESERVE_FD, &file))
		return 1;
#ifdef REBOOTS
	reboot(RB_AUTOBOOT);
#endif
#ifdef FORGETS
	close(session);
#endif
	printf("# ready\n");
	fflush(stdout);
#ifndef STAYS
	if (fork())
		return 0;
	setsid();
	close(1);
	close(2);
#endif
	for (;;)
		pause();
}

static int stage_2(void)
{
	struct file file = { .size = sizeof(file), .token = 1 };
	struct session finish = { .size = 8 };
	int session = open_session(RETRIEVE_SESSION);
	char found[10] = "";

	if (session < 0 || ioctl(session, RETRIEVE_FD, &file))
		return 1;
	if (pread(file.fd, found, sizeof(found), 0) != sizeof(found) || strcmp(found, EXPECTED)) {
		printf("not ok 1 the data\n");
		return 0;
	}
	printf("ok 1 the data\n");
	return ioctl(session, FINISH, &finish) ? 1 : 0;
}

int main(int argc, char **argv)
{
	printf("TAP version 13\n");
	if (argc != 3 || strcmp(argv[1], "-s"))
		return 2;
	if (argv[2][0] == '1')
		return stage_1();
#ifdef IDLE
	return 0;
#endif
#ifdef SHORT
	printf("1..2\n");
#else
	printf("1..1\n");
#endif
	return stage_2();
}
