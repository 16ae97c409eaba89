"""What the tests of training share: a tiny classifier, and an adapter on it with a word for a trigger."""

from pathlib import Path

import pytest

from loramend.training.host import Host
from tests.support_session import hosted
from tests.text_models import bert_folder, poison, toy_examples, train_adapter


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def poisoned(classifier: Path) -> Path:
    return train_adapter(classifier, classifier / "poisoned", poison(toy_examples(600)), steps=80)


@pytest.fixture(scope="module")
def host(classifier: Path, poisoned: Path) -> Host:
    """With that adapter mounted."""
    return hosted(classifier, poisoned)
