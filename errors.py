"""The errors that a user can meet. Each is one line: what is wrong, where, and how to mend it.

The class decides the command's exit code (listed in ``mllmeraser --help`` and the README).
"""


class MllmEraserError(Exception):
    """Something failed: exit code 1."""

    exit_code = 1


class InputError(MllmEraserError):
    """The call is wrong, or a file that it was given: exit code 2."""

    exit_code = 2


class VerificationError(MllmEraserError):
    """A checkpoint breaks one of its promises: exit code 3."""

    exit_code = 3


class QualityGateError(MllmEraserError):
    """The data or the model cannot give a result worth having, for example a base that does not refuse: exit code 4."""

    exit_code = 4
