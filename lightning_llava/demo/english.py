"""The embedded world in English, spelt as VQAv2 and LLaVA spell ("color")."""

from lightning_llava.demo.questions import Question, Topic
from lightning_llava.demo.scenes import Kind, Scene, SceneObject, Shape
from lightning_llava.demo.wording import capitalised

CODE = "en"
DESCRIBE = "Describe the image briefly."
IN_WORDS = "The image in words: {caption}"
OPPOSITES = (
    ("large", "small"),
    ("top", "bottom"),
    ("left", "right"),
    ("yes", "no"),
    ("day", "night"),
    ("open", "closed"),
    ("hot", "cold"),
    ("old", "new"),
)

PLACES = (
    *("at the top left", "at the top", "at the top right"),
    *("on the left", "in the middle", "on the right"),
    *("at the bottom left", "at the bottom", "at the bottom right"),
)
"""Cells of the grid, row by row."""
PLACE_ANSWERS = tuple(capitalised(place.split(" the ")[1]) for place in PLACES)
PLURALS: dict[Shape, str] = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "heart": "hearts",
    "cross": "crosses",
}
NUMBERS = ("no", "one", "two", "three", "four")
QUESTIONS: dict[Topic, str] = {
    "exists": "Is there {a_kind} in the image?",
    "is_colour": "Is the {shape} {colour}?",
    "colour_of": "What color is the {shape}?",
    "colour_at": "What color is the object {place}?",
    "shape_at": "What shape is the object {place}?",
    "count_all": "How many objects are in the image?",
    "count_shape": "How many {shapes} are in the image?",
    "count_colour": "How many {colour} objects are in the image?",
    "where": "Where is the {kind}?",
    "where_it": "Where is it?",
    "has_word": "Is there a word in the image?",
    "read": "What word is written in the image?",
}
REPLIES: dict[Topic, str] = {
    "colour_of": "The {shape} is {answer}.",
    "colour_at": "The object {place} is {answer}.",
    "shape_at": "The object {place} is a {answer}.",
    "count_all": "There {are} {number} {objects} in the image.",
    "count_shape": "There {are} {number} {counted_shapes} in the image.",
    "count_colour": "There {are} {number} {colour} {objects} in the image.",
    "where": "The {kind} is {answer_place}.",
    "where_it": "It is {answer_place}.",
    "read": 'The word "{answer}" is written in the image.',
}
DENIABLE_REPLIES: dict[Topic, tuple[str, str]] = {
    "exists": ("No, there is no {kind} in the image.", "Yes, there is {a_kind} in the image."),
    "is_colour": ("No, the {shape} is not {colour}.", "Yes, the {shape} is {colour}."),
    "has_word": ("No, there is no word in the image.", "Yes, there is a word in the image."),
}
"""Where the answer is no, and where it is yes."""


def ask(question: Question) -> str:
    """Ask."""
    return QUESTIONS[question.topic].format(**_forms(question))


def answer(question: Question) -> str:
    """Answer in a word or phrase."""
    if isinstance(question.answer, bool):
        return "Yes" if question.answer else "No"
    if isinstance(question.answer, int):
        places = question.topic in ("where", "where_it")
        return PLACE_ANSWERS[question.answer] if places else str(question.answer)
    return question.answer if question.topic == "read" else capitalised(question.answer)


def reply(question: Question) -> str:
    """Answer in a sentence."""
    if isinstance(question.answer, bool):
        template = DENIABLE_REPLIES[question.topic][question.answer]
    else:
        template = REPLIES[question.topic]
    return template.format(**_forms(question))


def describe(thing: SceneObject) -> str:
    """Name an object by size, colour and shape."""
    return f"{thing.size} {thing.kind.colour} {thing.kind.shape}"


def place(cell: int) -> str:
    """Name a cell of the grid."""
    return PLACES[cell]


def printed(word: str) -> str:
    """Name a printed word as a part of the picture."""
    return f'the word "{word}"'


def caption(scene: Scene) -> str:
    """Describe a scene in reading order."""
    parts = [f"a {describe(thing)} {PLACES[thing.cell]}" for thing in scene.objects]
    text = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    if scene.word is not None:
        place = PLACES[3 * scene.word.row + 1]
        text += f". {capitalised(printed(scene.word.text))} is written {place}"
    return capitalised(text) + "."


def ask_phrase(box: str) -> str:
    """Ask what is in a box."""
    return f"Describe the region {box}."


def ask_box(phrase: str) -> str:
    """Ask for the box of what a phrase names."""
    return f"Give the box of the region: {phrase}."


def ask_sum(first: int, second: int) -> str:
    """Ask for a sum."""
    return f"What is {first} plus {second}?"


def ask_opposite(word: str) -> str:
    """Ask for the opposite of a word."""
    return f'What is the opposite of "{word}"?'


def ask_letter(word: str, last: bool) -> str:
    """Ask for the first or last letter of a word."""
    return f'What is the {"last" if last else "first"} letter of the word "{word}"?'


def a(noun: str) -> str:
    """Put the indefinite article in front."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _forms(question: Question) -> dict[str, str]:
    forms = {"answer": str(question.answer)}
    if question.colour is not None:
        forms["colour"] = question.colour
    if question.shape is not None:
        forms |= {"shape": question.shape, "shapes": PLURALS[question.shape]}
    if question.colour is not None and question.shape is not None:
        kind = " ".join(Kind(question.colour, question.shape))
        forms |= {"kind": kind, "a_kind": a(kind)}
    if question.cell is not None:
        forms["place"] = PLACES[question.cell]
    if question.topic in ("where", "where_it"):
        forms["answer_place"] = PLACES[int(question.answer)]
    if question.topic.startswith("count"):
        single = question.answer == 1
        forms["are"] = "is" if single else "are"
        forms["number"] = NUMBERS[int(question.answer)]
        forms["objects"] = "object" if single else "objects"
        forms["counted_shapes"] = forms.get("shape" if single else "shapes", "")
    return forms
