"""``python -m epochcast`` is ``epochcast``."""

from epochcast.cli import main

main()
