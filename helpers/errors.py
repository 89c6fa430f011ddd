"""The one exception for input that the user can mend."""

from __future__ import annotations


class UserError(Exception):
    """Wrong input, told in one line: what is wrong, where it stands and how to mend it.

    The command line prints ``str(error)`` on stderr and exits with code 2, without a traceback.
    """

    def __init__(self, what: str, where: object = None, mend: str | None = None):
        self.what, self.where, self.mend = what, where, mend
        text = f"{where}: {what}" if where is not None else what
        if mend:
            text = f"{text.rstrip('.')}. {mend}"
        super().__init__(" ".join(text.split()))
