"""`python -m vision3d`."""

from vision3d.cli.app import main

if __name__ == "__main__":
    main()
