"""Instructions: what can be asked for, its targets and phrasings, and the understanding of text."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.edit.instructions.families import Edit
    from vision3d.stages.edit.instructions.phrases import phrase
    from vision3d.stages.edit.instructions.targets import Target, apply_edit, apply_edits
    from vision3d.stages.edit.instructions.text import TextEncoder, TextTokens, text_encoder
    from vision3d.stages.edit.instructions.understanding import InstructionError, Understanding, understand

_PUBLIC = {
    "Edit": ".families",
    "InstructionError": ".understanding",
    "Target": ".targets",
    "TextEncoder": ".text",
    "TextTokens": ".text",
    "Understanding": ".understanding",
    "apply_edit": ".targets",
    "apply_edits": ".targets",
    "phrase": ".phrases",
    "text_encoder": ".text",
    "understand": ".understanding",
}

__all__ = [
    "Edit",
    "InstructionError",
    "Target",
    "TextEncoder",
    "TextTokens",
    "Understanding",
    "apply_edit",
    "apply_edits",
    "phrase",
    "text_encoder",
    "understand",
]

__getattr__ = lazy_names(__name__, _PUBLIC)
