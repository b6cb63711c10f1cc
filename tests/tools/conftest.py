import pytest


@pytest.fixture
def refusal(tool, capsys):
    """Run the tool, which exits with 2 and one sentence."""

    def run(*arguments):
        capsys.readouterr()
        assert tool.main([*map(str, arguments)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        return printed.err

    return run
