"""TensorBoard: what is written for it, and a tab of our own with the traces. No torch in here."""
