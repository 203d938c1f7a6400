"""`python -m cluster.cli` is the command `oncelog`."""

from cluster.cli.main import main

main()
