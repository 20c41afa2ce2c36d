"""Files that people bring, as text in parts: read apart from the app, and cut to a number of tokens."""
