"""What a GPU has, and how torch hands out its memory. Nothing here needs torch or a GPU."""
