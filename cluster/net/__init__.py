"""Sockets: ZeroMQ endpoints and their monitors."""
