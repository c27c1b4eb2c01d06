"""One example, in the one shape that everything after reading uses."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Row:
    """One example: a conversation that ends with the assistant's answer, or a plain text."""

    number: int
    """Row number in the source, from 1."""
    group: str
    """Rows of one group stay in one split."""
    messages: tuple[Message, ...] = ()
    """Empty for plain text."""
    text: str | None = None
    """Set for plain text only."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All turns before the final answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The final answer, or the whole text."""
        return self.text if self.text is not None else self.messages[-1].content
