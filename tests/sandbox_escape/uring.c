/* Sends a marker by io_uring only: argv is mode (inline, async, sqpoll), address, port, mark. Every step,
 * the making of the sockets included, is asked of the ring. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct io_uring_params params;
static char *submission, *completion;
static struct io_uring_sqe *entries;
static int ring, async;

static unsigned *in(char *base, unsigned offset) { return (unsigned *)(base + offset); }

static int ask(struct io_uring_sqe entry) {
    unsigned *tail = in(submission, params.sq_off.tail), *head = in(completion, params.cq_off.head);
    unsigned at = *tail & *in(submission, params.sq_off.ring_mask);
    entry.flags = async ? IOSQE_ASYNC : 0;
    entries[at] = entry;
    in(submission, params.sq_off.array)[at] = at;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    unsigned flags = params.flags & IORING_SETUP_SQPOLL ? IORING_ENTER_SQ_WAKEUP : 0;
    syscall(SYS_io_uring_enter, ring, 1, 0, flags, NULL, 0);
    /* A connection attempt whose SYN is dropped would block for minutes. */
    for (int turn = 0; __atomic_load_n(in(completion, params.cq_off.tail), __ATOMIC_ACQUIRE) == *head; turn++) {
        if (turn > 400) return -ETIME;
        syscall(SYS_io_uring_enter, ring, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0);
        usleep(1000);
    }
    struct io_uring_cqe *done = (struct io_uring_cqe *)(completion + params.cq_off.cqes);
    int result = done[*head & *in(completion, params.cq_off.ring_mask)].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

static int make(int type) {
    return ask((struct io_uring_sqe){ .opcode = IORING_OP_SOCKET, .fd = AF_INET, .off = type });
}

int main(int count, char **words) {
    if (count != 5) return 2;
    async = !strcmp(words[1], "async");
    if (!strcmp(words[1], "sqpoll")) params = (struct io_uring_params){ .flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 2000 };
    ring = syscall(SYS_io_uring_setup, 8, &params);
    if (ring < 0) return perror("io_uring_setup"), 1;
    int rights = PROT_READ | PROT_WRITE;
    submission = mmap(0, params.sq_off.array + params.sq_entries * 4, rights, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    completion = mmap(0, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), rights, MAP_SHARED, ring, IORING_OFF_CQ_RING);
    entries = mmap(0, params.sq_entries * sizeof *entries, rights, MAP_SHARED, ring, IORING_OFF_SQES);
    struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons(atoi(words[3])) };
    inet_pton(AF_INET, words[2], &there.sin_addr);
    struct iovec part = { words[4], strlen(words[4]) };
    struct msghdr message = { .msg_name = &there, .msg_namelen = sizeof there, .msg_iov = &part, .msg_iovlen = 1 };

    int datagrams = make(SOCK_DGRAM);
    int said = ask((struct io_uring_sqe){ .opcode = IORING_OP_SENDMSG, .fd = datagrams, .addr = (unsigned long)&message, .len = 1 });
    int stream = make(SOCK_STREAM | SOCK_NONBLOCK);
    int connected = ask((struct io_uring_sqe){ .opcode = IORING_OP_CONNECT, .fd = stream, .addr = (unsigned long)&there, .off = sizeof there });
    printf("datagram %d connect %d\n", said, connected);
    return 0;
}
