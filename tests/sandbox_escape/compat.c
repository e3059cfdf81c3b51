/* Creates a packet socket through the system call tables that an x86_64 filter could miss. */
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **words) {
    long result;
    if (count == 2 && !strcmp(words[1], "i386"))
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(359), "b"(17), "c"(3), "d"(0) : "memory");
    else
        __asm__ volatile("syscall" : "=a"(result) : "a"(0x40000000 | SYS_socket), "D"(17), "S"(3), "d"(0) : "rcx", "r11", "memory");
    printf("%d\n", (int)result);
    return 0;
}
