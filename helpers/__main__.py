"""`python -m helpers`."""

import sys

from helpers.threads import suit_machine

suit_machine()

from helpers.cli import main  # noqa: E402  after the line above, which counts only before OpenMP is loaded

if __name__ == "__main__":
    sys.exit(main())
