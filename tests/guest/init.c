/* Process 1 of a guest: makes the file system of the host visible and runs commands for the host.
 *
 * The host gives the modules to load in the kernel's command line, in their order. The root of the
 * guest is the root of the host, read only (9p), with a tmpfs above it for what the guest writes.
 *
 * The host and this process talk over a virtio serial port:
 *
 *   to the host    "booted\n", then for each command any number of "out LENGTH\n" with LENGTH bytes
 *                  behind it, and "exit CODE\n"; or "failed REASON\n", and the guest ends
 *   to the guest   "run LENGTH\n" with LENGTH bytes of shell commands behind it; a command that
 *                  still runs is killed then
 *
 * The output of a command is what arrives until its first process ends.
 *
 * With guest_systemd=SCRIPT in the kernel's command line, systemd becomes process 1 when the script
 * has prepared its units, and starts this program again to run the commands. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT_WAIT_MS 20000 /* the port to the host appears some time after its driver is loaded */
#define TURN_MS 20         /* how long the end of a command may go unnoticed */
#define SHARE "trans=virtio,version=9p2000.L,msize=512000,cache=loose"
#define LAYERS                                                                                     \
    "lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work,redirect_dir=off,xino=off,"        \
    "index=off"

static int host = -1; /* the port to the host */

static void put(const void *data, size_t length)
{
    for (const char *at = data; length > 0;) {
        ssize_t done = write(host, at, length);
        if (done < 0 && errno != EINTR && errno != EAGAIN)
            return; /* nobody hears it: the host is about to end this guest */
        if (done > 0) {
            at += done;
            length -= (size_t)done;
        }
    }
}

static void say(const char *format, ...)
{
    char line[256];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (host >= 0)
        put(line, strlen(line));
}

static _Noreturn void fail(const char *what)
{
    const char *why = strerror(errno);
    dprintf(STDERR_FILENO, "guest: %s: %s\n", what, why);
    say("failed %s: %s\n", what, why);
    sleep(1); /* the port sends in the background */
    reboot(RB_POWER_OFF);
    _exit(1);
}

static void must_mount(const char *what, const char *where, const char *type, unsigned long flags,
                       const char *options)
{
    mkdir(where, 0755);
    if (mount(what, where, type, flags, options) != 0)
        fail(where);
}

/* The value of NAME=VALUE in the kernel's command line, or "". */
static const char *argument(const char *name)
{
    static char line[8192];
    int fd = open("/proc/cmdline", O_RDONLY);
    ssize_t length = read(fd, line, sizeof line - 1);
    close(fd);
    line[length > 0 ? length : 0] = 0;
    size_t size = strlen(name);
    for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
        if (strncmp(word, name, size) == 0 && word[size] == '=')
            return word + size + 1;
    return "";
}

static void load_modules(void)
{
    char names[4096];
    snprintf(names, sizeof names, "%s", argument("guest_modules"));
    for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
        char path[128];
        snprintf(path, sizeof path, "/modules/%s.ko", name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST))
            fail(path);
        close(fd);
    }
}

static int open_port(void)
{
    for (int waited = 0; waited < PORT_WAIT_MS; waited++) {
        DIR *folder = opendir("/sys/class/virtio-ports");
        for (struct dirent *entry; folder && (entry = readdir(folder));) {
            char path[300];
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            int fd = entry->d_name[0] == '.' ? -1 : open(path, O_RDWR | O_CLOEXEC);
            if (fd >= 0) {
                closedir(folder);
                return fd;
            }
        }
        if (folder)
            closedir(folder);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    errno = ETIMEDOUT;
    return -1;
}

static void write_number(const char *path, const char *number)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, number, strlen(number)) < 0)
        fail(path);
    close(fd);
}

static void mount_root(void)
{
    must_mount("host", "/host", "9p", MS_RDONLY, SHARE);
    must_mount("memory", "/memory", "tmpfs", 0, NULL);
    mkdir("/memory/upper", 0755);
    mkdir("/memory/work", 0755);
    must_mount("root", "/new", "overlay", 0, LAYERS);
    must_mount("proc", "/new/proc", "proc", 0, NULL);
    must_mount("sysfs", "/new/sys", "sysfs", 0, NULL);
    must_mount("devtmpfs", "/new/dev", "devtmpfs", 0, NULL);
    must_mount("devpts", "/new/dev/pts", "devpts", 0, NULL);
    must_mount("shm", "/new/dev/shm", "tmpfs", 0, "mode=1777");
    must_mount("run", "/new/run", "tmpfs", 0, "mode=755");
    const char *pages = argument("guest_hugepages");
    if (*pages) {
        write_number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", pages);
        must_mount("hugetlbfs", "/new/dev/hugepages", "hugetlbfs", 0, NULL);
    }
    if (chdir("/new") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0)
        fail("/");
}

static void start_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (ioctl(any, SIOCSIFFLAGS, &request) != 0)
        fail("lo");
    close(any);
}

static void get(char *data, size_t length)
{
    while (length > 0) {
        ssize_t done = read(host, data, length);
        if (done < 0 && errno != EINTR)
            fail("the port to the host");
        if (done > 0) {
            data += done;
            length -= (size_t)done;
        } else if (done == 0) { /* the host is not there yet */
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
}

/* The next command; the caller frees it. */
static char *next_command(void)
{
    char line[32];
    size_t at = 0;
    do
        get(&line[at], 1);
    while (line[at] != '\n' && ++at < sizeof line - 1);
    line[at] = 0;
    size_t length = 0;
    errno = EPROTO;
    if (sscanf(line, "run %zu", &length) != 1)
        fail("the port to the host");
    char *command = calloc(1, length + 1);
    if (!command)
        fail("a command");
    get(command, length);
    return command;
}

/* Send what the pipe holds now. */
static void relay(int pipe_end)
{
    static char data[1 << 16];
    ssize_t length;
    while ((length = read(pipe_end, data, sizeof data)) > 0) {
        say("out %zd\n", length);
        put(data, (size_t)length);
    }
}

static void run(char *command)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        fail("a pipe");
    fcntl(ends[1], F_SETFL, 0);
    pid_t child = fork();
    if (child == 0) {
        setsid();
        dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execl("/bin/sh", "sh", "-c", command, NULL);
        dprintf(STDERR_FILENO, "/bin/sh: %s\n", strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    if (child < 0)
        fail("fork");
    struct pollfd readable[2] = {{.fd = ends[0], .events = POLLIN}, {.fd = host, .events = POLLIN}};
    int status = 0;
    for (int ended = 0; !ended;) {
        poll(readable, 2, TURN_MS);
        if (readable[0].revents & POLLHUP)
            readable[0].fd = -1; /* all writers are gone; the pipe is read once more below */
        if (readable[1].revents & POLLIN) {
            kill(-child, SIGKILL);
            readable[1].fd = -1;
        }
        for (pid_t gone; (gone = waitpid(-1, &status, WNOHANG)) > 0;)
            if (gone == child) {
                ended = 1;
                break;
            }
        relay(ends[0]);
    }
    close(ends[0]);
    say("exit %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static _Noreturn void serve(void)
{
    if (host < 0)
        host = open_port();
    if (host < 0)
        fail("the port to the host");
    say("booted\n");
    for (;;) {
        char *command = next_command();
        run(command);
        free(command);
    }
}

static _Noreturn void become_systemd(const char *script)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", script, NULL);
        _exit(127);
    }
    errno = EIO;
    if (waitpid(child, &status, 0) != child || status != 0)
        fail("the units of systemd");
    execl("/lib/systemd/systemd", "systemd", "--unit=guest.target", "--show-status=no",
          "--log-target=console", "--log-level=warning", NULL);
    fail("/lib/systemd/systemd");
}

int main(int count, char **words)
{
    if (count > 1 && strcmp(words[1], "serve") == 0)
        serve();
    must_mount("proc", "/proc", "proc", 0, NULL);
    must_mount("sysfs", "/sys", "sysfs", 0, NULL);
    must_mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    char script[4096];
    snprintf(script, sizeof script, "%s", argument("guest_systemd"));
    load_modules();
    if (!*script && (host = open_port()) < 0) /* systemd's service opens it itself */
        fail("the port to the host");
    mount_root();
    start_loopback();
    if (*script)
        become_systemd(script);
    serve();
}
