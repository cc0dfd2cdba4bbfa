"""What an import really loads, each tried in a fresh interpreter; part of `make lint`.

The contracts in pyproject.toml hold between packages. These hold within them, and for packages of others: a Pi's daemon
has no room for torch, and the search must not need the coordinator's dependencies.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field

HEAVY = frozenset(
    {"torch", "numpy", "scipy", "pandas", "pyarrow", "sqlalchemy", "alembic", "rich", "typer", "matplotlib"}
)


@dataclass(frozen=True)
class Rule:
    """`import module` loads none of `never` (top-level names), and of the packages in `only` no more than they list.

    A name in such a list stands for itself and for everything below it.
    """

    module: str
    never: frozenset[str] = frozenset()
    only: dict[str, frozenset[str]] = field(default_factory=dict)


NAS_LEAVES = {"nas": frozenset({"nas.space", "nas.spaces", "nas.baselines", "nas.blocks", "nas.opstats"})}
NO_KNOT = frozenset({"agent", "coordinator", "lut_store"})
RULES = (
    Rule("agent", HEAVY | {"coordinator", "lut_store"}),
    Rule("agent.daemon", HEAVY | {"coordinator", "lut_store"}),
    Rule("protos.types", HEAVY | {"grpc", "google"}),
    Rule(
        "coordinator.client",
        frozenset({"torch", "sqlalchemy", "alembic", "rich", "typer", "matplotlib", "agent"}),
        {"coordinator": frozenset({"coordinator.client"})},
    ),
    Rule("coordinator.__main__", frozenset({"torch", "sqlalchemy", "pandas", "matplotlib", "scipy", "agent"})),
    Rule("nas.space", (HEAVY - {"numpy"}) | NO_KNOT, NAS_LEAVES),
    Rule("nas.opstats", HEAVY | NO_KNOT, NAS_LEAVES),
    Rule("nas.blocks", frozenset({"pandas", "sqlalchemy", "rich", "typer", "matplotlib"}) | NO_KNOT, NAS_LEAVES),
    Rule("lut_store.lut", frozenset({"torch", "sqlalchemy", "alembic", "matplotlib", "agent", "coordinator", "nas"})),
)


def loaded_by(module: str) -> list[str]:
    """The names of all modules that `import module` loads. Raises RuntimeError when it cannot be imported."""
    code = f"import json, sys\nimport {module}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"import {module} fails:\n{done.stderr.strip()}")
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


def broken(rule: Rule, loaded: list[str]) -> list[str]:
    """What `loaded` has that `rule` does not allow."""
    found = sorted(rule.never & set(loaded))
    for package, allowed in rule.only.items():
        roots = allowed | {package}
        found += [
            name
            for name in loaded
            if name.startswith(f"{package}.")
            and not any(name == a or name.startswith(f"{a}.") for a in roots - {package})
        ]
    return found


def main() -> int:
    failures = 0
    for rule in RULES:
        try:
            found = broken(rule, loaded_by(rule.module))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            failures += 1
            continue
        if found:
            print(f"import {rule.module} must not load: {', '.join(found)}", file=sys.stderr)
            failures += 1
    print(f"{len(RULES)} imports checked, {failures} broken")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
