"""Entry point of `python -m tiermodel`: the command line."""

from tiermodel.cli.main import main

if __name__ == "__main__":
    main()
