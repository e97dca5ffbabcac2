"""
Installs Debian's Chromium where it is missing: as root, as everybody else may not.

It runs before anything is installed, so it needs the standard library alone.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")


def main() -> int:
    """The exit status."""
    if CHROMIUM.exists():
        return 0
    apt_get = shutil.which("apt-get")
    if apt_get is None or os.geteuid() != 0:
        sys.exit(f"The tests of the page need {CHROMIUM}: install Debian's package chromium.")
    subprocess.run([apt_get, "update", "-qq"], check=True)
    return subprocess.run([apt_get, "install", "-y", "-qq", "--no-install-recommends", "chromium"]).returncode


if __name__ == "__main__":
    sys.exit(main())
