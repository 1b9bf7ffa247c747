"""Figures: what was probed, planned and followed."""
