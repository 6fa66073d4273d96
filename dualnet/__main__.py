"""`python -m dualnet …` does what `dualnet …` does."""

from dualnet.command.main import script

if __name__ == "__main__":
    script()
