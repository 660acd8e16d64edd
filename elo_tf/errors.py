"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Something the user can mend: the message names the file, the value and the mend.

    Binaries print it as one line, without a traceback, and exit with code 2.

    Attributes:
      message: what is printed. gin, through whose calls errors pass, replaces `args` and adds the
        call chain to `str()`; it leaves this attribute.
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message
