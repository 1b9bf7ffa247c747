"""What a training step allocates on a CUDA device, found on a machine without one."""
