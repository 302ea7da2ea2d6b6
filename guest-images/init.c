// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's pid 1: mounts what user space expects, then keeps the agent running as its child.
 *
 * Compiled with -DAGENT_ARGV='"program", "argument", ...' and -DLIBRARY_PATH='"dir:dir"'. The agent is a
 * child, not pid 1 itself, so that scenarios can kill it and so that kexec finds the files it holds open.
 * With `luh.once` on the kernel command line the machine is switched off when the agent ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A program that ends at once is not started again at once: the console stays readable. */
#define PAUSE_MICROSECONDS 200000

static const struct {
	const char *type, *target, *options;
} mounts[] = {
	{ "devtmpfs", "/dev", NULL },
	{ "proc", "/proc", NULL },
	{ "sysfs", "/sys", NULL },
	{ "tmpfs", "/tmp", "mode=1777" },
	{ "tmpfs", "/run", "mode=0755" },
	{ "tmpfs", "/dev/shm", "mode=1777" },
	{ "devpts", "/dev/pts", "ptmxmode=0666" },
	{ "debugfs", "/sys/kernel/debug", NULL },
	{ "cgroup2", "/sys/fs/cgroup", NULL },
};

static void mount_all(void)
{
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		if (!strncmp(mounts[i].target, "/dev/", 5))
			mkdir(mounts[i].target, 0755);
		/* A kernel without one of them is the agent's business, not ours. */
		mount(mounts[i].type, mounts[i].target, mounts[i].type, 0, mounts[i].options);
	}
}

/* The kernel could not open a console for us: /dev was still empty. */
static void open_console(void)
{
	int console = open("/dev/console", O_RDWR | O_NOCTTY);

	for (int fd = 0; console >= 0 && fd < 3; fd++)
		dup2(console, fd);
	if (console > 2)
		close(console);
}

static int runs_once(void)
{
	char line[4096] = "";
	FILE *file = fopen("/proc/cmdline", "r");

	if (file) {
		if (!fgets(line, sizeof(line), file))
			line[0] = '\0';
		fclose(file);
	}
	for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
		if (!strcmp(word, "luh.once"))
			return 1;
	return 0;
}

static pid_t start_agent(void)
{
	static char *const argv[] = { AGENT_ARGV, NULL };
	static char *const envp[] = {
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LANG=C.UTF-8",
		"LD_LIBRARY_PATH=" LIBRARY_PATH, NULL
	};
	pid_t pid = fork();

	if (pid)
		return pid;
	setsid();
	execve(argv[0], argv, envp);
	dprintf(2, "luh-init: cannot start %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* Wait for the agent, and reap the orphans of everything that it started. */
static int wait_for(pid_t agent)
{
	int status = 0;

	for (;;) {
		pid_t pid = wait(&status);

		if (pid == agent || (pid < 0 && errno == ECHILD))
			return status;
	}
}

int main(void)
{
	mount_all();
	open_console();
	for (;;) {
		int status = wait_for(start_agent());

		dprintf(1, "luh-init: the agent ended: %s %d\n", WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		if (runs_once())
			reboot(RB_POWER_OFF);
		usleep(PAUSE_MICROSECONDS);
	}
}
