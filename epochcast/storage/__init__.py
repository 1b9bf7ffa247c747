"""Measurements on disk, and which of them answer a question."""
