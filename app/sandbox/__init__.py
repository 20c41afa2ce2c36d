"""A process apart from the app's, for work on what strangers made: it may fail in any way without harm."""
