// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's pid 1: mounts what user space expects, then keeps the agent running as its child; and, in
 * images that have them, a root shell on the second console and, once, the script /luh/start.
 *
 * Compiled with -DAGENT_ARGV='"thaw", "program", "argument", ...', -DLIBRARY_PATH='"dir:dir"' and
 * -DAGENT_FILE='"path"', which is what thaw reads. The agent is a child, not pid 1 itself, so that scenarios
 * can kill it and so that kexec finds the files it holds open. It starts while all is being mounted, and waits
 * for the end of that (AGENT_WAITS_ON).
 *
 * On the kernel command line, `luh.once` switches the machine off when the agent ends, and `luh.online` has
 * all CPUs brought up before it speaks (harness/machine/arguments.py).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A program that ends at once is not started again at once: the console stays readable. */
#define PAUSE_MICROSECONDS 200000
/* The kernel finds the second console a moment after init has started, if the machine has one. */
#define TERMINAL "/dev/hvc0"
#define TERMINAL_TRIES 50

#define SHELL "/bin/sh"
#define START_SCRIPT "/luh/start"
/* An operating system command of ours (ECMA-48), which terminals ignore: the shell on it has ended. */
#define SHELL_ENDED "\033]777;luh;shell ended\007"

static const struct {
	const char *type, *target, *options;
} mounts[] = {
	{ "proc", "/proc", NULL },
	{ "sysfs", "/sys", NULL },
	{ "tmpfs", "/tmp", "mode=1777" },
	{ "tmpfs", "/run", "mode=0755" },
	{ "tmpfs", "/dev/shm", "mode=1777" },
	{ "devpts", "/dev/pts", "ptmxmode=0666" },
	{ "debugfs", "/sys/kernel/debug", NULL },
	{ "cgroup2", "/sys/fs/cgroup", NULL },
};

/* The descriptor that is at its end once all is mounted, and all CPUs are there. */
#define AGENT_WAITS_ON 3

static int mounted[2];

static void mount_all(void)
{
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		if (!strncmp(mounts[i].target, "/dev/", 5))
			mkdir(mounts[i].target, 0755);
		/* A kernel without one of them is the agent's business, not ours. */
		mount(mounts[i].type, mounts[i].target, mounts[i].type, 0, mounts[i].options);
	}
}

/* Returns 0, or why it could not be done. */
static int write_to(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC), error = 0;

	if (file < 0)
		return errno;
	if (write(file, text, strlen(text)) < 0)
		error = errno;
	close(file);
	return error;
}

/*
 * The image is read in few large pieces: each one of the usual 128 KiB would wait for its turn on the machine
 * below, and all of the interpreter is needed at once.
 */
static void read_far_ahead(void)
{
	write_to("/sys/block/vda/queue/read_ahead_kb", "4096\n");
}

/* A kept agent's memory is on its way into the page cache while its process begins. */
static void read_agent(void)
{
	int file = open(AGENT_FILE, O_RDONLY | O_CLOEXEC);

	if (file < 0)
		return;
	readahead(file, 0, lseek(file, 0, SEEK_END));
	close(file);
}

static void bring_up_cpus(void)
{
	char path[64];

	for (int cpu = 1, error = 0; error != ENOENT; cpu++) {
		snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online", cpu);
		error = write_to(path, "1");
		if (error && error != ENOENT)
			dprintf(2, "luh-init: CPU %d stays away: %s\n", cpu, strerror(error));
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

/* Whether the kernel command line has the word. */
static int told(const char *wanted)
{
	char line[4096] = "";
	FILE *file = fopen("/proc/cmdline", "r");

	if (file) {
		if (!fgets(line, sizeof(line), file))
			line[0] = '\0';
		fclose(file);
	}
	for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
		if (!strcmp(word, wanted))
			return 1;
	return 0;
}

/* The first word goes on with a kept agent (harness/image/thaw.c); without it, one starts anew. */
static char *agent_argv[] = { AGENT_ARGV, NULL };
static char **agent_starts = agent_argv;
static char *start_argv[] = { START_SCRIPT, NULL };
static char *shell_argv[] = { "-sh", NULL };

/* A child of ours that leads a session of its own; its environment gets TERM from the kernel's command line. */
static pid_t start(const char *program, char **argv, int (*prepare)(void))
{
	pid_t pid = fork();

	if (pid)
		return pid;
	setsid();
	if (!prepare || !prepare()) {
		setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
		setenv("LANG", "C.UTF-8", 1);
		setenv("LD_LIBRARY_PATH", LIBRARY_PATH, 1);
		setenv("ENV", "/etc/profile", 1);
		execv(program, argv);
		dprintf(2, "luh-init: cannot start %s: %s\n", program, strerror(errno));
	}
	_exit(127);
}

static int open_terminal(void)
{
	int terminal = -1;

	for (int i = 0; terminal < 0 && i < TERMINAL_TRIES; i++) {
		terminal = open(TERMINAL, O_RDWR | O_NOCTTY);
		if (terminal < 0)
			usleep(PAUSE_MICROSECONDS);
	}
	if (terminal < 0)
		return -1;
	ioctl(terminal, TIOCSCTTY, 1);
	for (int fd = 0; fd < 3; fd++)
		dup2(terminal, fd);
	return terminal > 2 ? close(terminal) : 0;
}

static pid_t start_shell(void)
{
	return access(SHELL, X_OK) ? -1 : start(SHELL, shell_argv, open_terminal);
}

static void tell_shell_ended(void)
{
	int terminal = open(TERMINAL, O_WRONLY | O_NOCTTY);

	if (terminal < 0)
		return;
	dprintf(terminal, SHELL_ENDED);
	close(terminal);
}

static int inherit_mounted(void)
{
	if (mounted[0] == AGENT_WAITS_ON)
		return fcntl(AGENT_WAITS_ON, F_SETFD, 0);
	return dup2(mounted[0], AGENT_WAITS_ON) < 0;
}

static pid_t start_agent(void (*meanwhile)(void))
{
	pid_t agent;

	if (pipe2(mounted, O_CLOEXEC))
		return -1;
	agent = start(agent_starts[0], agent_starts, inherit_mounted);
	if (meanwhile)
		meanwhile();
	close(mounted[0]);
	close(mounted[1]);
	return agent;
}

static void prepare_all(void)
{
	mount_all();
	read_far_ahead();
	if (told("luh.online"))
		bring_up_cpus();
}

/* Somebody's will. Any other end may be of the kept agent's own, on a CPU that lacks what it needs. */
static int was_killed(int status)
{
	return WIFSIGNALED(status) && (WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM);
}

int main(void)
{
	pid_t agent, shell;
	int status = 0;

	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	open_console();
	read_agent();
	agent = start_agent(prepare_all);
	shell = start_shell();
	if (!access(START_SCRIPT, X_OK))
		start(START_SCRIPT, start_argv, NULL);
	for (;;) {
		/* Orphans of everything that was started are reaped here as well. */
		pid_t pid = wait(&status);

		if (pid == shell && !(WIFEXITED(status) && WEXITSTATUS(status) == 127)) {
			tell_shell_ended();
			shell = start_shell();
		}
		if (pid != agent && !(pid < 0 && errno == ECHILD))
			continue;
		dprintf(1, "luh-init: the agent ended: %s %d\n", WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		if (told("luh.once"))
			reboot(RB_POWER_OFF);
		if (!was_killed(status))
			agent_starts = agent_argv + 1;
		usleep(PAUSE_MICROSECONDS);
		agent = start_agent(NULL);
	}
}
