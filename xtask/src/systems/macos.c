/* What `agentsecrets/src/base/sys/macos.rs` says of the system's structures, held against the system's own header. */
#include <stddef.h>
#include <sys/proc_info.h>

#define IS(found, said) _Static_assert((found) == (said), #found)

IS(PROC_PIDFDSOCKETINFO, 3);
IS(SOCKINFO_TCP, 2);
IS(TSI_S_ESTABLISHED, 4);
IS(INI_IPV4, 1);
IS(PROX_FDTYPE_SOCKET, 2);
IS(PROC_PIDLISTFDS, 1);
IS(sizeof(struct proc_fdinfo), 8);
IS(sizeof(struct vinfo_stat), 136);
IS(sizeof(struct socket_fdinfo), 792);
IS(offsetof(struct socket_fdinfo, psi.soi_kind), 256);
IS(offsetof(struct socket_fdinfo, psi.soi_proto), 264);
IS(sizeof(struct tcp_sockinfo), 120);
IS(offsetof(struct tcp_sockinfo, tcpsi_ini), 0);
IS(offsetof(struct tcp_sockinfo, tcpsi_state), 80);
IS(offsetof(struct in_sockinfo, insi_fport), 0);
IS(offsetof(struct in_sockinfo, insi_lport), 4);
IS(offsetof(struct in_sockinfo, insi_vflag), 24);
IS(offsetof(struct in_sockinfo, insi_faddr), 32);
IS(offsetof(struct in_sockinfo, insi_laddr), 48);
IS(offsetof(struct in4in6_addr, i46a_addr4), 12);
