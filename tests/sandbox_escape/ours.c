/* Preloaded into our own programs: makes them dumpable, so that other programs of the same user can read them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/prctl.h>

int prctl(int option, ...) {
    static int (*real)(int, unsigned long, unsigned long, unsigned long, unsigned long);
    unsigned long given[4];
    va_list list;
    va_start(list, option);
    for (int at = 0; at < 4; at++) given[at] = va_arg(list, unsigned long);
    va_end(list);
    if (!real) real = dlsym(RTLD_NEXT, "prctl");
    if (option == PR_SET_DUMPABLE) given[0] = 1;
    return real(option, given[0], given[1], given[2], given[3]);
}
