"""The commands: `dualnet train`, `dualnet check` and others; `main.COMMANDS` lists them."""
