"""What a request brings: the fields of a short form, and who sent it."""

from urllib.parse import parse_qs

from starlette.requests import Request

_LONGEST_FORM = 4_096


async def form_fields(request: Request) -> dict[str, str]:
    """Return the fields of a short form; nothing of a longer one."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            return {}
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in fields.items()}


def client_of(request: Request) -> str:
    """Return the address of whoever asks, for the access log."""
    return request.client.host if request.client else "unknown"
