"""Small networks with random parameters, and an encoder of texts that needs no package."""

import pytest

from tests.support.edit_models import WordEncoder, random_adapter, random_planes
from vision3d.stages.edit.editor import Editor
from vision3d.stages.edit.network.adapter_files import AdapterModel
from vision3d.stages.edit.network.files import PlanesModel


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def planes_model() -> PlanesModel:
    return random_planes()


@pytest.fixture
def adapter_model(planes_model, encoder) -> AdapterModel:
    return random_adapter(planes_model, encoder)


@pytest.fixture
def editor(planes_model, adapter_model, encoder) -> Editor:
    return Editor(planes_model, adapter_model, encoder)
