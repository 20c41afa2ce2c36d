"""A parser for each kind of file: bytes in, parts of text out."""
