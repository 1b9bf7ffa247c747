"""Seconds and bytes from measurements, without torch: fit, predict, plan."""
