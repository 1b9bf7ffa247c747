"""epochcast inside the process of somebody's script: standard library only, Python 3.9 or newer."""


def start():
    """Begin to watch, as the settings say."""
