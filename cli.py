from epochcast.cli import main

main()
