"""Compare the calls of a run with the truth: one row per sample, as a TSV and as a Markdown table.

The truth has one row per cell: ``cell_id``, ``is_tumour``, and where they exist ``true_type``, ``is_dying`` and
``is_doublet``. A barcode that holds a tumour cell and another cell counts as a tumour cell; how many of these there
are, and how many were called, stands in columns of its own. No rule of the workflow reads these files.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import pandas as pd

from dtcflow.contracts import InputError, Problem, read_table, write_table, write_text

COLUMNS = (
    "sample_id",
    "compartment",
    "cells",
    "tumour",
    "alive",
    "called",
    "indeterminate",
    "called_normal",
    "removed_by_qc",
    "alive_called",
    "alive_removed",
    "doublets",
    "doublets_called",
    "false_calls",
    "false_by_type",
    "recall",
    "recall_alive",
    "precision",
)
HEADINGS = {
    "sample_id": "sample",
    "alive": "of these alive",
    "called_normal": "called normal",
    "removed_by_qc": "removed by QC",
    "alive_called": "alive and called",
    "alive_removed": "alive and removed",
    "doublets": "tumour doublets",
    "doublets_called": "doublets called",
    "false_calls": "false calls",
    "false_by_type": "false calls by type",
    "recall_alive": "recall of the living",
}
LEGEND = (
    "tumour = called + indeterminate + called normal + removed by QC. Dying cells and doublets with a tumour cell "
    "count as tumour; recall is of all of them, recall of the living leaves the dying out. An empty recall means that "
    "the sample holds no tumour cell, an empty precision that no cell was called."
)


def read_truth(path: str | Path) -> pd.DataFrame:
    """Truth table with all columns; what a truth does not say (dying cells, doublets) is false."""
    truth = pd.read_csv(path, sep="\t", dtype={"cell_id": str}, keep_default_na=False)
    for column in ("is_tumour", "is_dying", "is_doublet"):
        if column not in truth:
            truth[column] = False
        truth[column] = truth[column].astype(str).str.lower().eq("true")
    if "true_type" not in truth:
        truth["true_type"] = ""
    return truth[["cell_id", "true_type", "is_tumour", "is_dying", "is_doublet"]]


def with_truth(cells: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Public cell table with the truth's columns; both must hold the same cells."""
    if set(cells["cell_id"]) != set(truth["cell_id"]) or truth["cell_id"].duplicated().any():
        different = sorted(set(cells["cell_id"]) ^ set(truth["cell_id"]))
        raise InputError(
            "the truth is not that of these results",
            [
                Problem(
                    "truth",
                    f"{len(different)} cells that are in one of the two only, such as {', '.join(different[:3])}",
                    "every cell of the results, once",
                    "give the truth of the same study folder",
                )
            ],
        )
    own = [column for column in cells.columns if column not in truth.columns or column == "cell_id"]
    return cells[own].merge(truth, on="cell_id", validate="one_to_one")


def _by_type(false: pd.DataFrame) -> str:
    sizes = false["true_type"].replace("", "unknown").value_counts()
    return ", ".join(f"{name} {n}" for name, n in sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _row(name: str, compartment: str, cells: pd.DataFrame) -> dict[str, object]:
    tumour = cells[cells["is_tumour"]]
    alive = tumour[~tumour["is_dying"]]
    doublets = tumour[tumour["is_doublet"]]
    called = cells["malignant_call"] == "malignant"
    false = cells[called & ~cells["is_tumour"]]
    n_called = int((tumour["malignant_call"] == "malignant").sum())
    n_alive = int((alive["malignant_call"] == "malignant").sum())
    return {
        "sample_id": name,
        "compartment": compartment,
        "cells": len(cells),
        "tumour": len(tumour),
        "alive": len(alive),
        "called": n_called,
        "indeterminate": int((tumour["malignant_call"] == "indeterminate").sum()),
        "called_normal": int((tumour["malignant_call"] == "normal").sum()),
        "removed_by_qc": int((~tumour["pass_qc"]).sum()),
        "alive_called": n_alive,
        "alive_removed": int((~alive["pass_qc"]).sum()),
        "doublets": len(doublets),
        "doublets_called": int((doublets["malignant_call"] == "malignant").sum()),
        "false_calls": len(false),
        "false_by_type": _by_type(false),
        "recall": n_called / len(tumour) if len(tumour) else float("nan"),
        "recall_alive": n_alive / len(alive) if len(alive) else float("nan"),
        "precision": n_called / int(called.sum()) if called.any() else float("nan"),
    }


def compare(cells: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Recall, precision and false calls per sample, and over all samples of each compartment (``all``).

    Parameters
    ----------
    cells
        Public table ``cells``.
    truth
        From :func:`read_truth`; the same cells.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`COLUMNS`; samples in alphabetical order, then one row per compartment with more than one sample.
    """
    joined = with_truth(cells, truth)
    rows = [
        _row(str(sample), str(part["compartment"].iloc[0]), part)
        for sample, part in joined.groupby("sample_id", sort=True)
    ]
    for compartment, part in joined.groupby("compartment", sort=True):
        if part["sample_id"].nunique() > 1:
            rows.append(_row("all", str(compartment), part))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def markdown(table: pd.DataFrame, *, title: str = "", notes: tuple[str, ...] = (), command: str = "") -> str:
    """A table of this folder as Markdown: command, title, table, notes."""

    def shown(value: object) -> str:
        if value is None or (isinstance(value, float) and pd.isna(value)):
            return ""
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        return text.replace("|", "\\|")

    lines = [f"<!-- made by: {command} -->", ""] if command else []
    lines += [f"# {title}", ""] if title else []
    numeric = [pd.api.types.is_numeric_dtype(table[column]) for column in table.columns]
    lines.append("| " + " | ".join(HEADINGS.get(str(c), str(c).replace("_", " ")) for c in table.columns) + " |")
    lines.append("|" + "|".join("---:" if right else "---" for right in numeric) + "|")
    lines += ["| " + " | ".join(shown(v) for v in row) + " |" for row in table.itertuples(index=False)]
    for note in notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def write_pair(
    table: pd.DataFrame, out: str | Path, *, title: str, notes: tuple[str, ...] = (), command: str | None = None
) -> None:
    """Write ``out.tsv`` and ``out.md``; the Markdown says which command made them."""
    out = Path(out)
    write_table(table, out.with_name(out.name + ".tsv"))
    made_by = own_command() if command is None else command
    write_text(out.with_name(out.name + ".md"), markdown(table, title=title, notes=notes, command=made_by))


def own_command() -> str:
    """The command line of this process, with paths as seen from the project's root."""
    root = Path(__file__).parents[1].absolute()
    script = Path(sys.argv[0]).absolute()
    name = script.relative_to(root) if script.is_relative_to(root) else Path(script.name)
    arguments = [a.replace(f"{root}/", "").replace(f"{root.parent}/", "../") for a in sys.argv[1:]]
    return shlex.join(["python", str(name), *arguments])


def main() -> int:
    """Write the table of one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="results folder of a finished run")
    parser.add_argument("--truth", type=Path, required=True, help="cells.tsv.gz of the truth")
    parser.add_argument("--out", type=Path, required=True, help="path without extension; .tsv and .md are written")
    parser.add_argument("--title", default="Calls against the truth")
    parser.add_argument("--command", help="how the run was made, for the header (default: this command)")
    arguments = parser.parse_args()
    try:
        table = compare(read_table(arguments.results / "cells.tsv.gz", "cells"), read_truth(arguments.truth))
    except InputError as error:
        print(f"dtcflow: {error}", file=sys.stderr)
        return 2
    write_pair(table, arguments.out, title=arguments.title, notes=(LEGEND,), command=arguments.command)
    print(markdown(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
