"""The verbs of the program, one row each: name -> (module, what it does). A module is imported when its verb runs."""

VERBS: dict[str, tuple[str, str]] = {
    "doctor": ("vision3d.cli.doctor", "say what works on this machine, and how to mend what does not"),
}
