"""The one exception that means: a setting or an input is wrong, and the user can mend it."""


class SettingError(ValueError):
    """Says what was found, what was expected and which setting or file mends it.

    The command line prints it as a sentence, without a traceback. Anything else that is raised is a
    bug of ours and keeps its traceback.
    """
