"""The log of a followed run: written line by line, read back whole."""
