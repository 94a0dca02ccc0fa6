"""Reporting checklists: the items that runs answer, and those that are left to the authors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vitaepp.reporting.dossier.methods import Facts


class Item(NamedTuple):
    """An item of a checklist, in short and in our words.

    Attributes:
        number: in the checklist.
        text: what it asks for.
        facts: names of the facts that answer it.
        rest: what no run can say; empty where the facts answer all of it.
    """

    number: str
    text: str
    facts: Sequence[str] = ()
    rest: str = ""


@dataclass(frozen=True)
class Checklist:
    """A checklist, and where it is published."""

    title: str
    source: str
    items: tuple[Item, ...]


_TRIPOD = (
    Item("1", "Title: development or evaluation of a prediction model, population, outcome"),
    Item("2", "Abstract, by TRIPOD+AI for abstracts"),
    Item("3a", "Healthcare context, rationale, existing models"),
    Item("3b", "Target population, purpose in the care pathway, intended users"),
    Item("3c", "Known health inequalities between groups"),
    Item("4", "Objectives: development, evaluation or both"),
    Item("5a", "Sources of the data, and how representative they are", ("cohort",), "the sources"),
    Item("5b", "Dates of the data"),
    Item("6a", "Setting, number and place of centres"),
    Item("6b", "Eligibility criteria", ("excluded",), "clinical criteria"),
    Item("6c", "Treatments received, and how they were handled"),
    Item("7", "Data preparation and quality checks", ("images", "intensities")),
    Item("8a", "Outcome, time horizon, how and when it was assessed", ("persons",), "its meaning"),
    Item("8b", "Qualifications of those who assessed the outcome"),
    Item("8c", "Blinding of the assessment of the outcome"),
    Item("9a", "Choice of the initial predictors", ("images",), "why these images"),
    Item("9b", "Definition and measurement of all predictors", ("model", "losses"), "acquisition"),
    Item("9c", "Qualifications of those who assessed predictors"),
    Item("10", "How the study size was arrived at", ("persons",), "its justification"),
    Item("11", "Missing data, and reasons for leaving data out", ("missing", "excluded")),
    Item("12a", "How the data were used and divided", ("partition", "disjoint")),
    Item("12b", "How predictors were handled", ("intensities", "controls")),
    Item(
        "12c",
        "Type of model, building steps, tuning, internal validation",
        ("model", "initial", "optimisation", "features", "classifier", "partition"),
        "the rationale",
    ),
    Item("12d", "Heterogeneity between clusters, such as hospitals"),
    Item(
        "12e", "Measures and plots of performance, and comparison of models", ("metrics", "tests")
    ),
    Item("12f", "Updating of the model after its evaluation"),
    Item("12g", "How predictions of the model were calculated", ("classifier", "threshold")),
    Item("13", "Class imbalance: methods used, and recalibration"),
    Item("14", "Approaches to fairness"),
    Item("15", "Output of the model, and thresholds", ("threshold",), "their clinical rationale"),
    Item("16", "Differences between development and evaluation data"),
    Item("17", "Ethics committee and consent"),
    Item("18a", "Funding"),
    Item("18b", "Conflicts of interest"),
    Item("18c", "Where the protocol can be read"),
    Item("18d", "Registration"),
    Item("18e", "Availability of the data"),
    Item("18f", "Availability of the code", ("software",), "where your own code is"),
    Item("19", "Involvement of patients and the public"),
    Item(
        "20a",
        "Flow of participants, with and without the outcome",
        ("cohort", "persons", "excluded"),
    ),
    Item(
        "20b", "Characteristics of participants, overall and by source", ("persons",), "the table"
    ),
    Item("20c", "Predictors in evaluation data, compared with development data"),
    Item("21", "Participants and outcomes in each analysis", ("persons", "partition")),
    Item("22", "Full model, so that others can predict with it", ("model",), "where its files are"),
    Item("23a", "Performance with intervals, also of key subgroups", ("results",), "subgroups"),
    Item("23b", "Heterogeneity of performance between clusters"),
    Item("24", "Results of updating the model"),
    Item("25", "Interpretation, with fairness, objectives and earlier studies"),
    Item("26", "Limitations"),
    Item("27a", "How poor or missing input is to be handled in use", ("missing",), "poor input"),
    Item("27b", "What users must do, and the expertise they need"),
    Item("27c", "Next steps, applicability and generalisability"),
)

_CLAIM = (
    Item("1", "Title or abstract names a study of AI methods, and the kind of technology"),
    Item("2", "Structured abstract"),
    Item("3", "Background, intended use and clinical role"),
    Item("4", "Aims, objectives and hypotheses"),
    Item("5", "Prospective or retrospective"),
    Item("6", "Goal of the study"),
    Item("7", "Data sources", ("cohort",), "the sources"),
    Item("8", "Inclusion and exclusion criteria", ("excluded",), "clinical criteria"),
    Item("9", "Data preprocessing", ("images", "intensities")),
    Item("10", "Selection of subsets of the data", ("images",), "further selection"),
    Item("11", "De-identification", ("privacy",), "what was done before"),
    Item("12", "Missing data", ("missing", "persons")),
    Item("13", "Image acquisition protocol"),
    Item("14", "Definition of the reference standard"),
    Item("15", "Why this reference standard"),
    Item("16", "Source of the reference standard's annotations"),
    Item("17", "Annotation of the test set"),
    Item("18", "Variability within and between annotators"),
    Item("19", "Assignment of data to partitions", ("partition",)),
    Item("20", "Level at which partitions are disjoint", ("disjoint",)),
    Item("21", "Intended sample size"),
    Item("22", "Model, with inputs, outputs and layers", ("model", "classifier")),
    Item("23", "Software libraries and versions", ("software",)),
    Item("24", "Initialisation of the weights", ("initial", "seed")),
    Item(
        "25", "Training: augmentation, hyperparameters, length", ("losses", "views", "optimisation")
    ),
    Item("26", "How the final model was selected", ("selection", "classifier")),
    Item("27", "Ensembles"),
    Item("28", "Metrics of performance", ("metrics",)),
    Item("29", "Significance and uncertainty", ("tests", "uncertainty")),
    Item("30", "Robustness or sensitivity analysis", ("controls",), "further analyses"),
    Item("31", "Explainability, and how it was validated"),
    Item("32", "Evaluation on internal data", ("partition",)),
    Item("33", "Test on external data"),
    Item("34", "Registration of a clinical trial"),
    Item("35", "Numbers included and excluded", ("cohort", "persons", "excluded")),
    Item("36", "Demographic and clinical characteristics of each partition"),
    Item("37", "Performance with uncertainty", ("results",)),
    Item("38", "Diagnostic performance and its precision", ("results",), "at clinical thresholds"),
    Item("39", "Failure analysis"),
    Item("40", "Limitations"),
    Item("41", "Implications for practice, intended use and clinical role"),
    Item("42", "Reference to the full protocol or further details", ("software",), "the protocol"),
    Item("43", "Availability of software, trained model and data"),
    Item("44", "Funding, and the role of funders"),
)

CHECKLISTS = {
    "tripod-ai": Checklist("TRIPOD+AI", "Collins et al., BMJ 2024;385:e078378", _TRIPOD),
    "claim": Checklist(
        "CLAIM, 2024 update",
        "Tejani et al., Radiology: Artificial Intelligence 2024;6:e240300",
        _CLAIM,
    ),
}


def checklist(stem: str, facts: Facts) -> str:
    """A checklist as Markdown: what is answered, and what is open.

    Args:
        stem: of `CHECKLISTS`.
        facts: sentences by their name; an empty one answers nothing.
    """
    chosen = CHECKLISTS[stem]
    rows, open_items = [], []
    for item in chosen.items:
        answers = [facts[name] for name in item.facts if facts.get(name)]
        whole = answers and len(answers) == len(item.facts) and not item.rest
        state = "answered" if whole else "in part" if answers else "**open**"
        if not whole:
            open_items.append(item.number)
        text = " ".join(answers)
        if answers and item.rest:
            text += f" *Left to say: {item.rest}.*"
        rows.append(
            f"| {item.number} | {item.text} | {state} | {text.replace('|', chr(92) + '|')} |"
        )
    done = len(rows) - len(open_items)
    return "\n".join(
        [
            f"# {chosen.title}",
            "",
            "Items by number and in short, in our words; the wording that counts is in "
            f"{chosen.source}.",
            f"The runs answer {done} of {len(rows)}. Left to you, whole or in part: "
            f"{', '.join(open_items)}.",
            "",
            "| item | asks for | state | answer |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )
