/* The whole user space of the guest: process 1. It says on the console what is on its disk, then
 * writes one numbered file after the other, each durable before it is acknowledged, until somebody
 * presses the power button. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { WORDS = 2048 };

static void say(const char *format, ...)
{
    char line[256];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (write(1, line, len) != len)
        _exit(1);
}

static void off(void)
{
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

static void fail(const char *what)
{
    say("GUEST FAILED %s: %s\n", what, strerror(errno));
    off();
}

static void load_modules(void)
{
    /* Their order is in their names. */
    struct dirent **names;
    int count = scandir("/modules", &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[300];
        if (names[i]->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
        int file = open(path, O_RDONLY);
        if (file < 0 || (syscall(SYS_finit_module, file, "", 0) && errno != EEXIST))
            fail(path);
        close(file);
    }
}

static void name_of(char *path, size_t size, unsigned number)
{
    snprintf(path, size, "/disk/file-%06u", number);
}

static void fill(unsigned *words, unsigned number)
{
    for (unsigned i = 0; i < WORDS; i++)
        words[i] = number * 2654435761u + i * 40503u;
}

/* Whether file `number` is there and whole. */
static int is_whole(unsigned number)
{
    static unsigned expected[WORDS], found[WORDS + 1];
    char path[64];
    name_of(path, sizeof path, number);
    int file = open(path, O_RDONLY);
    if (file < 0)
        return 0;
    ssize_t len = read(file, found, sizeof found);
    close(file);
    fill(expected, number);
    return len == sizeof expected && !memcmp(expected, found, sizeof expected);
}

static void write_file(unsigned number)
{
    static unsigned words[WORDS];
    char path[64];
    name_of(path, sizeof path, number);
    fill(words, number);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || write(file, words, sizeof words) != sizeof words || fsync(file))
        fail("write");
    close(file);
    int directory = open("/disk", O_RDONLY);
    if (directory < 0 || fsync(directory))
        fail("fsync");
    close(directory);
    say("ACK %u\n", number);
}

static int button(void)
{
    for (int i = 0; i < 16; i++) {
        char path[32], name[64] = "";
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        int device = open(path, O_RDONLY | O_NONBLOCK);
        if (device < 0)
            continue;
        ioctl(device, EVIOCGNAME(sizeof name), name);
        if (!strcmp(name, "Power Button"))
            return device;
        close(device);
    }
    fail("no power button");
    return -1;
}

static int pressed(int device, int wait_ms)
{
    struct pollfd wait = {.fd = device, .events = POLLIN};
    poll(&wait, 1, wait_ms);
    struct input_event event;
    while (read(device, &event, sizeof event) == sizeof event)
        if (event.type == EV_KEY && event.code == KEY_POWER && event.value)
            return 1;
    return 0;
}

int main(int argc, char **argv)
{
    mkdir("/dev", 0755);
    mkdir("/disk", 0755);
    mount("dev", "/dev", "devtmpfs", 0, "");
    int console = open("/dev/ttyS0", O_RDWR);
    if (console >= 0)
        dup2(console, 1);
    load_modules();
    /* The last word of the kernel's command line is how it is to behave. */
    int deaf = argc > 1 && !strcmp(argv[argc - 1], "deaf");
    int device = button();
    for (int i = 0; mount("/dev/vda", "/disk", "ext4", 0, ""); i++) {
        if (i == 100)
            fail("mount");
        usleep(50000);
    }
    unsigned number = 1;
    while (is_whole(number))
        number++;
    say("GUEST FOUND %u\n", number - 1);
    for (;;) {
        write_file(number++);
        if (pressed(device, 100) && !deaf)
            break;
    }
    if (umount("/disk"))
        fail("umount");
    say("GUEST ENDS\n");
    off();
    return 0;
}
