"""Mutants: the real code with one rule broken, each of which the simulator must catch."""
