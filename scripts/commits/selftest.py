"""Every known table, but the first, is what would be written from its record today; so is the list of them."""

import json
import re

from . import table


def essence(text):
    """A table without comments and its note, which are a person's."""
    text = re.sub(r"^//!?.*$", "", text, flags=re.M)
    return re.sub(r'note: "(?:[^"\\]|\\.)*"', 'note: ""', text).strip()


def main(root):
    rows = [json.loads(line) for line in (root / "tests/fixtures/upstream/recipes.jsonl").read_text().splitlines()]
    values = [table.flat(row["convention"]) | table.flat(row["recipe"]) for row in rows]
    wrong = [f"{row['commit'][:7]}: {path} has no value" for row, has in zip(rows, values) for path in table.leaves() if path not in has]
    order = re.findall(r"^    (\w+)::RECIPE,$", (root / "src/upstream/commits/mod.rs").read_text(), re.M)
    if order != [table.module(row["commit"]) for row in rows]:
        wrong.append("src/upstream/commits/mod.rs lists other commits, or in another order, than recipes.jsonl")
    for (base, row), (before, new) in zip(zip(rows, rows[1:]), zip(values, values[1:])):
        file = root / "src/upstream/commits" / f"{table.module(row['commit'])}.rs"
        made = table.render(row["commit"], row["date"], "", [""], table.module(base["commit"]), new, before)
        if essence(made) != essence(file.read_text()):
            wrong.append(f"{file.name} is not what its record gives:\n{essence(made)}")
    # A list without its last commit, and with it again.
    text = (root / "src/upstream/commits/mod.rs").read_text()
    last, base = rows[-1]["commit"], rows[-2]["commit"]
    name = table.module(last)
    count = len(rows)
    less = text.replace(f"mod {name};\n", "").replace(f"    {name}::RECIPE,\n", "").replace(f"; {count}]", f"; {count - 1}]")
    if table.listed(less, last, base) != text or table.listed(text, last, base) != text:
        wrong.append("a commit is not listed as mod.rs lists it")
    for line in wrong:
        print(line)
    print(f"{len(rows) - 1} tables are what their records give" if not wrong else f"{len(wrong)} differences")
    return 1 if wrong else 0
