"""What is wrong with a request: a status, a field and words that never hold a value of the request."""

from __future__ import annotations

__all__ = ["RequestError"]


class RequestError(Exception):
    """A request that is refused with an HTTP `status`.

    `field` says where in the body the fault is, such as `transactions[3].amount`; nothing that is a value of the
    request may be in it, nor in the message.
    """

    def __init__(self, status: int, message: str, field: str = "") -> None:
        """Keep status, message and field."""
        super().__init__(message)
        self.status, self.message, self.field = status, message, field
