"""Prints the folder of the plug-ins, for frameworks that take one as a file."""

from pathlib import Path

if __name__ == "__main__":
    print(Path(__file__).parent)
