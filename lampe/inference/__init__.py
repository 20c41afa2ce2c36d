"""Prompts, and reading them with a patched model."""
