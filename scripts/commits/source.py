"""Which functions of upstream's code differ between two checkouts, whatever their comments say."""

import ast

# What decides a pretraining run; the rest of nanochat is chat, tasks and serving.
FILES = [
    "nanochat/gpt.py",
    "nanochat/optim.py",
    "nanochat/dataloader.py",
    "nanochat/dataset.py",
    "nanochat/tokenizer.py",
    "nanochat/loss_eval.py",
    "nanochat/core_eval.py",
    "nanochat/flash_attention.py",
    "nanochat/common.py",
    "nanochat/checkpoint_manager.py",
    "nanochat/fp8.py",
    "scripts/base_train.py",
    "scripts/base_eval.py",
    "scripts/tok_train.py",
]


def without_words(node):
    """A tree without docstrings, so that only code is compared."""
    for inner in ast.walk(node):
        body = getattr(inner, "body", None)
        if isinstance(body, list):
            inner.body = [
                line
                for line in body
                if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str))
            ]
    return node


def parts(text):
    """Code by name: functions and methods, and what stands outside of them."""
    found = {}

    def visit(nodes, prefix):
        rest = []
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found[f"{prefix}{node.name}"] = ast.dump(node)
            else:
                rest.append(ast.dump(node))
        found[f"{prefix}(outside of functions)"] = "\n".join(rest)

    visit(without_words(ast.parse(text)).body, "")
    return found


def differences(new, base):
    """Lines `file: names` of what differs; what one of the two has not got says so."""
    lines = []
    for file in FILES:
        old, now = ((root / file) for root in (base, new))
        if not now.exists() and not old.exists():
            continue
        if not now.exists() or not old.exists():
            lines.append(f"{file}: {'new' if now.exists() else 'gone'}")
            continue
        before, after = parts(old.read_text()), parts(now.read_text())
        names = [
            name + (" (new)" if name not in before else " (gone)" if name not in after else "")
            for name in {**before, **after}
            if before.get(name) != after.get(name)
        ]
        if names:
            lines.append(f"{file}: {', '.join(names)}")
    return lines
