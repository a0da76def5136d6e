"""`python -m fer_experiments` and the console script `fer`."""

from fer_experiments.entry import main

if __name__ == "__main__":
    main()
