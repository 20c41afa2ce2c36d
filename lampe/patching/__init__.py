"""Putting a method into a loaded model, and taking it out again."""
