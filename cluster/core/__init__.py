"""Sans-IO machines: a batch meets produce, validate, append, replicate, acknowledge, fetch."""
