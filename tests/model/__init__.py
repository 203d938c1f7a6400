"""The replication protocol as a small step function, searched exhaustively within bounds."""
