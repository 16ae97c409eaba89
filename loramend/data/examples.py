"""What clean, unlabelled and evaluation text is once read."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from loramend.contracts.data import DataRole

DataKind = Literal["classification", "completion", "chat", "text"]


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One line of a data file.

    text        the text, or the prompt of a completion; empty for a chat
    label       the class, as the file has it; None where there is none
    completion  the answer of a completion or chat; None where there is none
    messages    a chat's turns before the answer
    is_prompt   whether a text without a completion is a prompt, not plain text
    drafted     whether the completion is an adapter's own, not known to be right
    """

    text: str
    label: int | str | None = None
    completion: str | None = None
    messages: tuple[Message, ...] = ()
    is_prompt: bool = False
    drafted: bool = False

    @property
    def labelled(self) -> bool:
        """Whether the right answer is known."""
        return self.label is not None or (self.completion is not None and not self.drafted)

    @property
    def asks(self) -> bool:
        """Whether it is a prompt, or a chat, that waits for its answer."""
        return self.completion is None and (self.is_prompt or bool(self.messages))


@dataclass(frozen=True)
class Dataset:
    """A data file as read: its role, name and sha256, and its examples in the file's order."""

    role: DataRole
    name: str
    sha256: str
    kind: DataKind
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Corpus:
    """All text a repair was given.

    validation_share  of `clean`, held out for calibration where there is no `validation`
    """

    clean: Dataset | None = None
    unlabelled: Dataset | None = None
    validation: Dataset | None = None
    evaluation: Dataset | None = None
    triggered: Dataset | None = None
    validation_share: float = field(default=0.2)

    def datasets(self) -> Iterator[Dataset]:
        """Those that were given."""
        for dataset in (self.clean, self.unlabelled, self.validation, self.evaluation, self.triggered):
            if dataset is not None:
                yield dataset
