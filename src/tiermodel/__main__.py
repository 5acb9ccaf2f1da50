"""Run the command line: `python -m tiermodel`."""

from tiermodel.cli.main import main

if __name__ == "__main__":
    main()
