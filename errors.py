"""The errors a user can meet: one line each, saying what is wrong, where, and how to mend it.

The class decides the exit code of the command (documented in ``mllmeraser --help`` and the README).
"""


class MllmEraserError(Exception):
    """Something failed: exit code 1."""

    exit_code = 1


class InputError(MllmEraserError):
    """The call, or a file it was given, is wrong: exit code 2."""

    exit_code = 2


class VerificationError(MllmEraserError):
    """A directory does not keep a promise it makes: exit code 3."""

    exit_code = 3


class QualityGateError(MllmEraserError):
    """The data or the model cannot give a result worth having, for example a base that does not refuse: exit code 4."""

    exit_code = 4
