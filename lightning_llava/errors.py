"""The one exception that means: a setting or an input is wrong, and the user can mend it."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

Arguments = ParamSpec("Arguments")


class SettingError(ValueError):
    """Says what was found, what was expected and which setting or file mends it.

    The command line prints it as a sentence, without a traceback. Anything else that is raised is a
    bug of ours and keeps its traceback.
    """


def explains_wrong_input(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Let a tool end with 2, and a sentence, on a wrong input."""

    @wraps(main)
    def run(*args: Arguments.args, **settings: Arguments.kwargs) -> int:
        try:
            return main(*args, **settings)
        except SettingError as error:
            sys.stderr.write(f"error: {error}\n")
            return 2

    return run
