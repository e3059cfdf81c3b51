"""Sends the request in the second argument to api.test, and prints the response."""
import socket, ssl, sys

context = ssl.create_default_context()
with socket.create_connection(("api.test", int(sys.argv[1]))) as tcp:
    with context.wrap_socket(tcp, server_hostname="api.test") as stream:
        stream.settimeout(20)
        stream.sendall(sys.argv[2].encode())
        while piece := stream.recv(65536):
            sys.stdout.buffer.write(piece)
