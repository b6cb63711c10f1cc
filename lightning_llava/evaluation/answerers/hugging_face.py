"""Any image-text-to-text model of transformers: llava-hf, InstructBLIP, BLIP-2 and others."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from lightning_llava.data.images import decode
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.fingerprints import (
    fingerprint,
    hash_folder,
    local_folder,
)
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.benchmarks.question import LONG_ANSWERS
from lightning_llava.hub import check_complete, explain_loading
from lightning_llava.specs import GenerationSpec
from lightning_llava.text.template import SHORT_ANSWER

PLAIN = {"en": "Question: {question} Short answer:", "ru": "Вопрос: {question} Краткий ответ:"}
"""The English one is BLIP-2's for FlanT5, and InstructBLIP's for VQA."""
LONG = {"en": "Question: {question} Answer:", "ru": "Вопрос: {question} Ответ:"}
"""For kinds whose answers are no single word."""

Inputs = Mapping[str, Tensor]


class HuggingFaceModel:
    """A model with its own processor and, where it has one, its own chat template; greedy.

    Args:
        name: folder or hub name.
        device: on a GPU it computes in bf16.
        max_new_tokens: longest answer.
        at_once: most questions in a pass.
        template: the text around a question, as `{question}`; None takes LLaVA's short-answer
            prompt in a chat, else `PLAIN` or `LONG`.
        revision: of the hub.

    Raises:
        SettingError: nothing loadable under that name, or a template without `{question}`.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        max_new_tokens: int | None = None,
        at_once: int = 32,
        template: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.name, self.device, self.at_once = name, device, at_once
        self.max_new_tokens = max_new_tokens or GenerationSpec().max_new_tokens
        self._folder = local_folder(name, revision, "--model")
        with explain_loading(name, "--model"):
            # As published: torchvision's resizing, where it is installed, gives other pixels.
            self._processor: Any = AutoProcessor.from_pretrained(
                self._folder, backend="pil", trust_remote_code=False
            )
        self._chats = getattr(self._processor, "chat_template", None) is not None
        self._template = template
        self._check_template()
        self._dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        # The template is in the prompt.
        self.fingerprint = fingerprint(
            model=hash_folder(self._folder),
            max_new_tokens=self.max_new_tokens,
            dtype=str(self._dtype),
        )

    def prompt(self, question: Question) -> str:
        """Write the question as the processor takes it, placeholders of images not expanded.

        Raises:
            SettingError: it has no picture, and the model needs one.
        """
        if question.image is None and not self._chats:
            raise SettingError(
                f"question {question.question_id} of {question.benchmark} is not about a picture, "
                f"and {self.name!r} answers about pictures only; give another model or benchmark"
            )
        said = [*question.history, self._text(question)]
        if not self._chats:
            return said[-1]
        turns = []
        for place, text in enumerate(said):
            image = [{"type": "image"}] if place == 0 and question.image is not None else []
            content = [*image, {"type": "text", "text": text}]
            turns.append({"role": "assistant" if place % 2 else "user", "content": content})
        return self._processor.apply_chat_template(turns, add_generation_prompt=True)

    def _text(self, question: Question) -> str:
        if self._template is None and self._chats:
            return question.asked(SHORT_ANSWER)
        form = LONG if question.kind in LONG_ANSWERS else PLAIN
        template = self._template or form[question.language]
        return template.replace("{question}", question.asked(None))

    def answer(self, image: Path | None, questions: Sequence[Question]) -> list[str]:
        """Answer together what has the same shapes, so that nothing is ever padded."""
        picture = None if image is None else _decoded(image)
        inputs = [self._inputs(picture, question) for question in questions]
        alike: dict[object, list[int]] = defaultdict(list)
        for number, tensors in enumerate(inputs):
            alike[tuple((name, tensor.shape) for name, tensor in tensors.items())].append(number)
        answers: dict[int, str] = {}
        for numbers in alike.values():
            for start in range(0, len(numbers), self.at_once):
                part = numbers[start : start + self.at_once]
                found = self._generate([inputs[number] for number in part])
                answers |= zip(part, found, strict=True)
        return [answers[number] for number in range(len(questions))]

    def _inputs(self, picture: Image.Image | None, question: Question) -> Inputs:
        try:
            text, bos = self.prompt(question), self._processor.tokenizer.bos_token
            pictures = {} if picture is None else {"images": picture}
            inputs = self._processor(
                text=text,
                **pictures,
                # Some chat templates write BOS.
                add_special_tokens=not (bos and text.startswith(bos)),
                return_tensors="pt",
            )
        except (ValueError, TypeError) as error:
            raise SettingError(
                f"question {question.question_id} of {question.benchmark}: the processor of "
                f"{self.name!r} refuses it ({error})"
            ) from error
        return {name: tensor for name, tensor in inputs.items() if isinstance(tensor, Tensor)}

    @torch.no_grad()
    def _generate(self, inputs: Sequence[Inputs]) -> list[str]:
        joint: dict[str, Tensor] = {}
        for name in inputs[0]:
            tensor = torch.cat([one[name] for one in inputs]).to(self.device)
            joint[name] = tensor.to(self._dtype) if tensor.is_floating_point() else tensor
        model, settings = self._loaded
        ids: Tensor = model.generate(**joint, generation_config=settings)
        # Decoder-only models repeat their prompt, unless they were given embeddings.
        asked = joint["input_ids"]
        if ids.shape[1] >= asked.shape[1] and torch.equal(ids[:, : asked.shape[1]], asked):
            ids = ids[:, asked.shape[1] :]
        texts = self._processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    @cached_property
    def _loaded(self) -> tuple[Any, GenerationConfig]:
        """Load it when the first question is asked: all of them may have their answers."""
        with explain_loading(self.name, "--model"):
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                self._folder,
                dtype=self._dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        model, info = loaded
        check_complete(info, self.name, "--model")
        settings = greedy(model, self._processor.tokenizer, self.max_new_tokens)
        return model.to(self.device).eval(), settings

    def _check_template(self) -> None:
        if self._template is not None and "{question}" not in self._template:
            raise SettingError(f"--prompt: {self._template!r} has no {{question}} in it")
        # BLIP's processors put the picture in front by themselves.
        if self._template or self._chats or hasattr(self._processor, "num_query_tokens"):
            return
        token = getattr(self._processor, "image_token", "<image>")
        raise SettingError(
            f"--prompt: {self.name!r} has no chat template; give the whole prompt with {{question}}"
            f" and its image token, such as 'USER: {token}\\n{{question}} ASSISTANT:'"
        )


def greedy(model: Any, tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    """Return settings for greedy answers, and take from the model all that would change them.

    `generate` fills what it is not told from the model's own settings, such as a repetition
    penalty or InstructBLIP's beams.
    """
    parts = [part for part in model.modules() if hasattr(part, "generation_config")]

    def own(name: str) -> Any:
        found = [getattr(part.generation_config, name) for part in parts]
        found.append(getattr(tokenizer, name, None))
        return next((value for value in found if value is not None), None)

    ends = own("eos_token_id")
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None:
        pad = ends[0] if isinstance(ends, list) else ends
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=ends,
        pad_token_id=pad,
        bos_token_id=own("bos_token_id"),
        decoder_start_token_id=own("decoder_start_token_id"),
    )
    for part in parts:
        part.generation_config = GenerationConfig()
    return settings


def _decoded(image: Path) -> Image.Image:
    try:
        return decode(image.read_bytes())
    except (SettingError, OSError) as error:
        raise SettingError(f"{image}: {error}") from error
