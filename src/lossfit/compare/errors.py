"""Errors that are shown to the user as they are, without a traceback."""


class InputError(ValueError):
    """Something in the data or the arguments that the user can mend."""
