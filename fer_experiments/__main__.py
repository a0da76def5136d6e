"""`python -m fer_experiments` and the console script `fer`."""

from fer_experiments.cli import main

if __name__ == "__main__":
    main()
