"""The metadata store: one interface, compare-and-set, leases, watches."""
