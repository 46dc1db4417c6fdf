"""The errors a person sees. Each message is one line that says what is wrong and what to do.

What belongs here: the base class and errors that more than one folder raises. An error that one
module alone raises stands in that module and subclasses `PlatformError`.
"""


class PlatformError(Exception):
    """Something the operator can mend. The command line prints it in one line, exit status 1."""


class SettingsError(PlatformError):
    """A setting is missing or has a value that is not allowed. Exit status 2."""


class ServiceUnavailableError(PlatformError):
    """Kafka, PostgreSQL or a Mastodon server could not be reached or refused."""
