"""`python -m laser_studio`: the command line."""

from laser_studio.cli import main

if __name__ == "__main__":
    main()
