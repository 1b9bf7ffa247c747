"""The built-in workloads and their models."""
