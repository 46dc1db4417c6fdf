"""Retries of a step by the cause of its failure.

What belongs here: which causes pass by themselves. An outage does; lost data, a wrong setting or a
mistake of the program would fail again, and is not retried.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import dagster as dg

from mastodon_assets.errors import ServiceUnavailableError

MAX_RETRIES = 2
SECONDS_TO_WAIT = 5

_P = ParamSpec("_P")
_R = TypeVar("_R")


def retried_after_outages(compute: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let Dagster repeat the step of an asset after an outage of Kafka, PostgreSQL or a server.

    The last attempt fails with its own error.
    """
    if inspect.isgeneratorfunction(compute):

        @wraps(compute)
        def generate(*args: Any, **kwargs: Any) -> Any:
            with _asking_for_retries():
                yield from compute(*args, **kwargs)

        return generate

    @wraps(compute)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _asking_for_retries():
            return compute(*args, **kwargs)

    return call


@contextmanager
def _asking_for_retries() -> Iterator[None]:
    try:
        yield
    except ServiceUnavailableError as error:
        context = dg.OpExecutionContext.get()
        if context.retry_number >= MAX_RETRIES:
            raise
        context.log.warning("%s; attempt %s follows", error, context.retry_number + 2)
        raise dg.RetryRequested(MAX_RETRIES, SECONDS_TO_WAIT) from error
