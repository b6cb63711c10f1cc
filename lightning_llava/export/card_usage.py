"""How to load what was exported, per format, in the card's words."""

HF = """\
```python
from PIL import Image
from transformers import AutoProcessor, CLASS

processor = AutoProcessor.from_pretrained("FOLDER", backend="pil")
model = CLASS.from_pretrained("FOLDER", dtype="auto")
question = [
    {"type": "image", "image": Image.open("photo.jpg")},
    {"type": "text", "text": "What is in the picture?"},
]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": question}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
).to(model.device, model.dtype)
answer = model.generate(**inputs, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(answer, skip_special_tokens=True))
```

`FOLDER` is this repository. `backend="pil"` gives the pixels of training where torchvision is
installed, too. A message of the role `system` takes the place of the system text it was trained
with, where it has one. Text that spells a special token becomes that token, unless
`apply_chat_template` is given `sanitize_control_tokens=True`.
"""

ADAPTER = """\
The adapter alone, on the LLM that `adapter_config.json` names:

```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("FOLDER")
```

With the projector (`projector.safetensors`) and the vision tower, in this project's repository:

```bash
python tools/import_weights.py --source FOLDER --output imported
python tools/evaluate.py -c configs/eval/pope.yaml --model imported/weights.ckpt --output runs/eval
```
"""
LLAVA = """\
```bash
python -m llava.serve.cli --model-path FOLDER --image-file photo.jpg
```

with the code of haotian-liu/LLaVA, which goes by the folder's name: it must contain `llava`, and
`mistral` for a Mistral.
"""

USAGE = {"hf": HF, "adapter": ADAPTER, "llava": LLAVA}
