"""A training step counted, run or not."""
