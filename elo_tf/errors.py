"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Something the user can mend: the message names the file, the value and the mend.

    Binaries print it as one line, without a traceback, and exit with code 2.
    """
