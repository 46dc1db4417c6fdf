"""The errors that a person sees. Each message is one line: what is wrong and what to do.

What belongs here: the base class and the errors that more than one folder raises. An error that
only one module raises is in that module and subclasses `PlatformError`.
"""


class PlatformError(Exception):
    """An error that the operator can fix. The command line prints one line, exit status 1."""


class SettingsError(PlatformError):
    """Raised if a setting is missing or its value is not allowed. Exit status 2."""


class ServiceUnavailableError(PlatformError):
    """Raised if Kafka, PostgreSQL or a Mastodon server does not answer or refuses access."""
