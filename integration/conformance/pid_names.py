"""Names for the pids of a transcript, which are others in each world. Pure."""

import re

# A row of `ps` and its cells of a pid; names are longer than pids, so cells get this much more.
OF_CLIENT_ROW = re.compile(r"\b\d+ +\d+ +\d+ +(GPU|MIG)-")
CELL = re.compile(r"(?<![\w-])(\d{2,})( +)")
WIDER = 8
# Not the digits of a UUID nor of a fraction, which are a pid's now and then.
PID = re.compile(r"(?<![\w.-])\d+(?!\.?[\w-])")


def names_in(log, tester):
    """pid -> name, of whom the control daemon's log tells, and of who plays the scripts."""
    names = {str(tester): "<tester>"}
    for index, pid in enumerate(re.findall(r"Control +(\d+)\] Starting control", log)):
        names[pid] = f"<daemon {index + 1}>"
    for index, pid in enumerate(re.findall(r"Starting new server (\d+)", log)):
        names[pid] = f"<server {index + 1}>"
    for index, pid in enumerate(dict.fromkeys(re.findall(r"NEW CLIENT (\d+)", log))):
        names.setdefault(pid, f"<client {index + 1}>")
    return names


def with_names(text, names):
    if OF_CLIENT_ROW.search(text):
        text = CELL.sub(lambda cell: named_cell(cell, names), text)
    return PID.sub(lambda match: names.get(match.group(), match.group()), text)


def named_cell(cell, names):
    """As wide, whatever the number of the pid's digits: the widths of columns are compared, too."""
    return names.get(cell[1], cell[1]).ljust(len(cell[0]) + WIDER)
