import io
import sys

from bottlefit_jax.training.progress import RunLog


def test_characters_that_the_terminal_cannot_show_are_escaped(tmp_path, monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="latin-1"))
    log = RunLog(tmp_path)
    log.say("café 猫 \udce9")
    log.close()
    assert shown.getvalue() == b"caf\xe9 \\u732b \\udce9\n"
