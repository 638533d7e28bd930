"""``python -m sweeps`` is ``carsweep``."""

from sweeps.cli import main

if __name__ == "__main__":
    main()
