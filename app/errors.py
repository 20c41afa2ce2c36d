"""The page's own errors for people; the library's are in `lampe.errors`."""

from lampe.errors import InputError


class AskError(InputError):
    """Something about the request that the person can mend; the message says what and how."""
