/* Preloaded into a program, makes it request /evil instead of /good. */
#include <string.h>

__attribute__((constructor)) static void change(int argc, char **argv) {
    for (int at = 1; at < argc; at++) {
        char *place = strstr(argv[at], "/good");
        if (place) memcpy(place, "/evil", 5);
    }
}
