"""One module each, no event loop, milliseconds."""
