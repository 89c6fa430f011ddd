"""Runs a GGUF chat model on this computer's CPU with llama.cpp: prompt, decoding, streaming."""

from __future__ import annotations

import codecs
import ctypes
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from helpers.errors import UserError
from helpers.gguf_header import file_type, read_header
from helpers.llama_cpu import (
    QUANT_SHARE,
    check_memory,
    compute_path,
    default_threads,
    free_memory,
    load_library,
)
from helpers.prompts import render_template
from helpers.streaming import StopBuffer

BATCH = 512  # prompt tokens per decode call


def find_gguf(path: Path | str, quant: str = "q8_0") -> Path:
    """The model file that `path` names: itself, or in a run folder gguf/model-QUANT.gguf, then the best."""
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise UserError("no such file or folder", path, "Make a model with `make run`, or check the path.")
    for name in (quant, *QUANT_SHARE):
        for folder in (path / "gguf", path):
            if (folder / f"model-{name}.gguf").is_file():
                return folder / f"model-{name}.gguf"
    others = sorted([*path.glob("gguf/*.gguf"), *path.glob("*.gguf")])
    others = [file for file in others if file.name != "adapter.gguf"]
    if not others:
        raise UserError(
            "no GGUF model in the folder",
            path,
            f"Make one: python -m helpers export --model {path} --quant {quant}",
        )
    return others[0]


class LocalLLM:
    """A GGUF chat model in memory. One answer at a time; use as a context manager or call close()."""

    def __init__(
        self,
        path: Path | str,
        n_ctx: int = 2048,
        n_threads: int | None = None,
        adapter: Path | str | None = None,
    ):
        """Load `path` (a file or a run folder), with an optional LoRA `adapter` in GGUF form.

        Raises UserError: no model, no chat template, not enough memory, a damaged file.
        """
        self._model = self._context = self._adapter = None
        self.path = find_gguf(path)
        header = read_header(self.path)
        arch = header.get("general.architecture")
        self.template = header.get("tokenizer.chat_template")
        if not self.template:
            # llama-cpp-python would silently use a llama-2 template here, and the answers would be bad.
            raise UserError("the file has no chat template", self.path, "Export it from a model that has one.")
        self.n_ctx = min(n_ctx, header.get(f"{arch}.context_length", n_ctx))
        self.file_type = file_type(header)
        check_memory(self.path, header, self.n_ctx, free_memory())
        self._lib = lib = load_library()
        fast, self.compute_path = compute_path()

        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = fast
        self._model = lib.llama_model_load_from_file(os.fsencode(self.path), params)
        if not self._model:
            raise UserError("llama.cpp cannot load the file", self.path, "It is damaged or too new: export it again.")
        self._vocab = lib.llama_model_get_vocab(self._model)
        settings = lib.llama_context_default_params()
        settings.n_ctx = self.n_ctx
        settings.n_batch = settings.n_ubatch = min(BATCH, self.n_ctx)
        settings.n_threads = settings.n_threads_batch = n_threads or default_threads()
        self._context = lib.llama_init_from_model(self._model, settings)
        if not self._context:
            raise UserError("no memory for the context", self.path, "Use a smaller n_ctx.")
        if adapter:
            self._load_adapter(Path(adapter))
        self.n_vocab = lib.llama_vocab_n_tokens(self._vocab)
        self.bos = lib.llama_vocab_bos(self._vocab) if "tokenizer.ggml.bos_token_id" in header else None
        self._eos = lib.llama_vocab_eos(self._vocab)
        self._cached: list[int] = []  # tokens whose keys and values are in the cache

    def _load_adapter(self, adapter: Path) -> None:
        lib = self._lib
        self._adapter = lib.llama_adapter_lora_init(self._model, os.fsencode(adapter)) if adapter.is_file() else None
        if not self._adapter:
            raise UserError("cannot be loaded as an adapter of this model", adapter, "Export it again.")
        one = (lib.llama_adapter_lora_p_ctypes * 1)(self._adapter)
        lib.llama_set_adapters_lora(self._context, one, 1, (ctypes.c_float * 1)(1.0))

    # -- text and tokens

    def prompt_text(self, messages: list[dict]) -> str:
        """The conversation as the model sees it, by the file's own chat template."""
        tokens = {"bos_token": self._token_text(self.bos), "eos_token": self._token_text(self._eos)}
        try:
            return render_template(self.template, messages, **tokens)
        except ValueError as error:
            raise UserError(str(error), self.path, "Send system, user and assistant messages in turn.") from error

    def prompt_ids(self, messages: list[dict]) -> list[int]:
        """Token ids of the prompt. BOS stands there only if the template writes it, as in training."""
        return self.tokenize(self.prompt_text(messages))

    def tokenize(self, text: str, add_special: bool = False) -> list[int]:
        """Token ids of `text`, special tokens recognised; `add_special` adds BOS if the file says so."""
        data = text.encode("utf-8")
        room = len(data) + 8
        ids = (self._lib.llama_token * room)()
        count = self._lib.llama_tokenize(self._vocab, data, len(data), ids, room, add_special, True)
        if count < 0:
            raise RuntimeError(f"llama.cpp failed to tokenise {len(data)} bytes")
        return list(ids[:count])

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token: possibly only a part of a character. Control tokens give none."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._lib.llama_token_to_piece(self._vocab, token, buffer, room, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def is_end(self, token: int) -> bool:
        """Whether the token ends a turn or a text (EOS, EOT, <|im_end|> and the like)."""
        return self._lib.llama_vocab_is_eog(self._vocab, token)

    def _token_text(self, token: int | None) -> str:
        return "" if token is None or token < 0 else self._lib.llama_vocab_get_text(self._vocab, token).decode()

    # -- generation

    def logits(self, ids: list[int]):
        """Scores of the next token after `ids`: float32 array of shape (vocabulary,).

        Whatever beginning of `ids` is in the key/value cache from the call before is not computed again.
        """
        import numpy as np

        lib, memory = self._lib, self._lib.llama_get_memory(self._context)
        keep = min(len(self._cached), len(ids) - 1)  # the last token is always computed: its scores are asked for
        if self._cached[:keep] != ids[:keep]:
            keep = next(place for place, old in enumerate(self._cached) if old != ids[place])
        lib.llama_memory_seq_rm(memory, 0, keep, -1)
        self._cached = ids[:keep]
        for start in range(keep, len(ids), BATCH):
            part = ids[start : start + BATCH]
            tokens = (lib.llama_token * len(part))(*part)  # named: the batch only points to this memory
            if lib.llama_decode(self._context, lib.llama_batch_get_one(tokens, len(part))) != 0:
                raise RuntimeError(f"llama.cpp failed to compute {len(ids)} tokens (context {self.n_ctx})")
            self._cached += part
        scores = ctypes.addressof(lib.llama_get_logits_ith(self._context, -1).contents)
        return np.frombuffer((ctypes.c_float * self.n_vocab).from_address(scores), np.float32).copy()

    def generate(
        self, ids: list[int], max_tokens: int = 256, temperature: float = 0.0, seed: int | None = None
    ) -> Iterator[int]:
        """Token ids of an answer, the end token included; greedy when `temperature` is 0."""
        import numpy as np

        if len(ids) >= self.n_ctx:
            raise UserError(
                f"the conversation has {len(ids)} tokens, the context holds {self.n_ctx}",
                self.path,
                "Start a new conversation or shorten it.",
            )
        random = np.random.default_rng(seed)
        ids = list(ids)
        for _ in range(min(max_tokens, self.n_ctx - len(ids))):
            scores = self.logits(ids)
            if temperature > 0:
                # Adding Gumbel noise and taking the largest is the same as drawing from the softmax.
                scores = scores / temperature + random.gumbel(size=scores.shape)
            token = int(scores.argmax())
            yield token
            if self.is_end(token):
                return
            ids.append(token)

    def stream(
        self,
        messages: list[dict],
        max_tokens: int = 256,
        stop: Iterable[str] = (),
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The answer piece by piece: whole characters only, and nothing of a stop string."""
        # A character may be split over several tokens: the decoder waits for the rest of its bytes.
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        buffer = StopBuffer(stop)
        for token in self.generate(self.prompt_ids(messages), max_tokens, temperature, seed):
            if text := buffer.feed(decoder.decode(self.token_bytes(token))):
                yield text
            if buffer.finished:
                return
        if text := buffer.feed(decoder.decode(b"", final=True)) + buffer.flush():
            yield text

    def chat(
        self,
        messages: list[dict],
        max_tokens: int = 256,
        stop: Iterable[str] = (),
        stream: bool = False,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> str | Iterator[str]:
        """The assistant's answer to `messages`: a string, or with `stream` an iterator over its pieces."""
        pieces = self.stream(messages, max_tokens, stop, temperature, seed)
        return pieces if stream else "".join(pieces)

    def close(self) -> None:
        """Give the memory back; the object cannot be used afterwards."""
        if self._context:
            self._lib.llama_free(self._context)
        if self._model:
            self._lib.llama_model_free(self._model)  # frees its adapters too
        self._context = self._model = None

    def __enter__(self) -> LocalLLM:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
