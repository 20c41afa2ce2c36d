"""Where parsers run: a process apart from the app's."""
