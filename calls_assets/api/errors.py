"""What can go wrong between us and the vendor's API.

    ApiError
    ├── PermanentError             asking again gives the same
    │   ├── AccessDeniedError      401 or 403, and reading the token again did not help: stops the run at once
    │   ├── RedirectRefusedError   3xx: the token would go to another address; several in a row stop the run
    │   └── RequestRefusedError    any other status that is neither 200, 404 nor worth a retry; the same
    ├── TransientError             one id used up its attempts; others may well succeed
    └── ContractError              a 200 whose body is not what the vendor documents: quarantined

No message holds a token, a body, a query or a name: statuses, ids, counts and field paths only.
"""

from __future__ import annotations


class ApiError(Exception):
    """Root of everything the API package raises on purpose."""


class PermanentError(ApiError):
    """Asking again gives the same answer."""


class AccessDeniedError(PermanentError):
    """The API refused the token (401 or 403), also after the token file was read again."""


class RedirectRefusedError(PermanentError):
    """The API answered with a redirect, which is never followed."""


class RequestRefusedError(PermanentError):
    """The API answered with a status that no retry can cure and no rule covers."""


class TransientError(ApiError):
    """All attempts for one id failed in ways that may pass.

    Attributes:
        call_id: The id that was asked for.
        attempts: How often it was asked for.
        reason: What the last attempt died of, in a few words.
    """

    def __init__(self, call_id: int, attempts: int, reason: str) -> None:
        super().__init__(call_id, attempts, reason)
        self.call_id = call_id
        self.attempts = attempts
        self.reason = reason

    def __str__(self) -> str:
        return f"call {self.call_id}: no answer after {self.attempts} attempt(s): {self.reason}"


class ContractError(ApiError):
    """A body breaks the contract; the message is a short reason that quotes nothing from the body."""
