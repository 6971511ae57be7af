"""Errors of the lake.

LakeError                the lake cannot be used as asked; the message is one line that says what, where and what to do
└── CorruptFileError     a stored file cannot be read
"""

from __future__ import annotations


class LakeError(Exception):
    """The lake cannot be used as asked."""


class CorruptFileError(LakeError):
    """A stored file is damaged.

    Attributes:
        key: The file's path in the lake.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key} is damaged ({reason}); run `calls-assets verify` to see how to heal it")
        self.key = key
        self.reason = reason
