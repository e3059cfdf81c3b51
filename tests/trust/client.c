/* A client of the explicit proxy: PORT TARGET [PROGRAM ARGUMENT...]. It asks once with a secret, prints the
 * status, and then starts the program, if one is named, as its child. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in proxy = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    proxy.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char text[4096];
    int length = snprintf(text, sizeof text,
                          "GET /proxy HTTP/1.1\r\nHost: localhost\r\nX-AS-Target-URL: %s\r\n"
                          "X-AS-Inject-Bearer: API_KEY\r\nConnection: close\r\n\r\n",
                          argv[2]);
    if (connect(fd, (struct sockaddr *)&proxy, sizeof proxy) || write(fd, text, length) != length) return 1;
    length = 0;
    for (int more; (more = read(fd, text + length, sizeof text - 1 - length)) > 0;) length += more;
    text[length] = 0;
    printf("%.3s\n", length > 12 ? text + 9 : "---");
    fflush(stdout);
    close(fd);
    if (argc > 3 && fork() == 0) {
        execv(argv[3], argv + 3);
        _exit(127);
    }
    return argc > 3 ? wait(NULL) < 0 : 0;
}
