"""`python -m lightning_llava`."""

from lightning_llava.cli import main

if __name__ == "__main__":
    main()
