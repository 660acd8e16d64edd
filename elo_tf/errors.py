"""Exceptions that are meant for the user's eyes."""


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


class Stopped(Exception):  # noqa: N818  (it is none)
    """The work stopped on request, with everything saved; the same command goes on.

    Attributes:
      message: what is printed.
      exit_code: of the program.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
