import pytest


@pytest.mark.parametrize(
    ("setting", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_what_is_missing_fails_in_ci_and_is_skipped_elsewhere(
    shared_data, monkeypatch, setting, outcome
):
    monkeypatch.setenv("CI", setting)
    with pytest.raises(outcome, match=r"nowhere\.json not there"):
        shared_data("nowhere.json")
