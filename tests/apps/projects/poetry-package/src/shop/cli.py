from pathlib import Path

import click

TITLES = ["Dune", "Emma", "Ulysses"]


@click.group()
def main():
    """Look after the shop."""


@main.command()
def index():
    """Write the index of all titles."""
    Path("index").mkdir(exist_ok=True)
    Path("index", "titles.txt").write_text("\n".join(sorted(TITLES)))
