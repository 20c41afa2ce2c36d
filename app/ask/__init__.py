"""The tab "Ask a document"."""
