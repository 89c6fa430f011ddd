"""`python -m helpers`."""

import os
import sys

# Threads that wait by spinning take the second core away from whatever else runs: on a busy two-core machine that made
# short answers a hundred times slower. It counts only before OpenMP is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from helpers.cli import main

if __name__ == "__main__":
    sys.exit(main())
