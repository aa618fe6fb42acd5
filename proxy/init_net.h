/*
 * init_net.h - the subcommand init-net: rules that redirect a network namespace's outgoing
 * connections to the transparent listener.
 *
 * Runs once, with CAP_NET_ADMIN, before the programs to be captured start; the proxy itself
 * needs no right for it.  What the proxy opens is told apart by its user or group; the
 * default is user 65532, as which our image and manifests run it.  If something else listens
 * on the port and neither --uid nor --gid was given, nothing is applied: the rules would
 * capture the proxy itself.
 */
#ifndef PROXY_INIT_NET_H
#define PROXY_INIT_NET_H

/* argv[0] is "init-net".  Returns the exit code: 0, 1 not verified, 2 usage, 71 the system
 * refused, 77 a capability is missing. */
int init_net_main(int argc, char **argv);

#endif
