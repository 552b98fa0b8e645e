"""``python -m npga`` is ``npga``."""

from npga.cli import main

if __name__ == "__main__":
    main()
