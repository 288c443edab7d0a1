"""The columns of Camtrap DP 1.0.2 (a TDWG standard, https://camtrap-dp.tdwg.org), in the standard's order.

Each column: name, type, and what the standard demands: "required" and "unique", ("enum", values), ("range", least,
most). Facts of the standard in our own notation; tests validate exports against them.
"""

from __future__ import annotations

from typing import Any

VERSION = "1.0.2"
BASE = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{VERSION}/"
PROFILE = BASE + "camtrap-dp-profile.json"
DATETIME = "%Y-%m-%dT%H:%M:%S%z"
SAMPLING_DESIGNS = (
    *("simpleRandom", "systematicRandom", "clusteredRandom", "experimental", "targeted", "opportunistic"),
)

Column = tuple[Any, ...]

DEPLOYMENTS: tuple[Column, ...] = (
    ("deploymentID", "string", "required", "unique"),
    ("locationID", "string"),
    ("locationName", "string"),
    ("latitude", "number", "required", ("range", -90, 90)),
    ("longitude", "number", "required", ("range", -180, 180)),
    ("coordinateUncertainty", "integer", ("range", 1, None)),
    ("deploymentStart", "datetime", "required"),
    ("deploymentEnd", "datetime", "required"),
    ("setupBy", "string"),
    ("cameraID", "string"),
    ("cameraModel", "string"),
    ("cameraDelay", "integer", ("range", 0, None)),
    ("cameraHeight", "number", ("range", 0, None)),
    ("cameraDepth", "number", ("range", 0, None)),
    ("cameraTilt", "integer", ("range", -90, 90)),
    ("cameraHeading", "integer", ("range", 0, 360)),
    ("detectionDistance", "number", ("range", 0, None)),
    ("timestampIssues", "boolean"),
    ("baitUse", "boolean"),
    (
        *("featureType", "string"),
        (
            "enum",
            *("roadPaved", "roadDirt", "trailHiking", "trailGame", "roadUnderpass", "roadOverpass", "roadBridge"),
            *("culvert", "burrow", "nestSite", "carcass", "waterSource", "fruitingTree"),
        ),
    ),
    ("habitat", "string"),
    ("deploymentGroups", "string"),
    ("deploymentTags", "string"),
    ("deploymentComments", "string"),
)

MEDIA: tuple[Column, ...] = (
    ("mediaID", "string", "required", "unique"),
    ("deploymentID", "string", "required"),
    ("captureMethod", "string", ("enum", "activityDetection", "timeLapse")),
    ("timestamp", "datetime", "required"),
    ("filePath", "string", "required", ("pattern", r"^(?=^[^./~])(^((?!\.{2}).)*$).*$")),
    ("filePublic", "boolean", "required"),
    ("fileName", "string"),
    ("fileMediatype", "string", "required", ("pattern", "^(image|video|audio)/.*$")),
    ("exifData", "any"),
    ("favorite", "boolean"),
    ("mediaComments", "string"),
)

OBSERVATIONS: tuple[Column, ...] = (
    ("observationID", "string", "required", "unique"),
    ("deploymentID", "string", "required"),
    ("mediaID", "string"),
    ("eventID", "string"),
    ("eventStart", "datetime", "required"),
    ("eventEnd", "datetime", "required"),
    ("observationLevel", "string", "required", ("enum", "media", "event")),
    (
        *("observationType", "string", "required"),
        ("enum", "animal", "human", "vehicle", "blank", "unknown", "unclassified"),
    ),
    ("cameraSetupType", "string", ("enum", "setup", "calibration")),
    ("scientificName", "string"),
    ("count", "integer", ("range", 1, None)),
    ("lifeStage", "string", ("enum", "adult", "subadult", "juvenile")),
    ("sex", "string", ("enum", "female", "male")),
    ("behavior", "string"),
    ("individualID", "string"),
    ("individualPositionRadius", "number", ("range", 0, None)),
    ("individualPositionAngle", "number", ("range", -90, 90)),
    ("individualSpeed", "number", ("range", 0, None)),
    ("bboxX", "number", ("range", 0, 1)),
    ("bboxY", "number", ("range", 0, 1)),
    ("bboxWidth", "number", ("range", 1e-15, 1)),
    ("bboxHeight", "number", ("range", 1e-15, 1)),
    ("classificationMethod", "string", ("enum", "human", "machine")),
    ("classifiedBy", "string"),
    ("classificationTimestamp", "datetime"),
    ("classificationProbability", "number", ("range", 0, 1)),
    ("observationTags", "string"),
    ("observationComments", "string"),
)

TABLES = {"deployments": DEPLOYMENTS, "media": MEDIA, "observations": OBSERVATIONS}
_KEYS = {"media": ("deployments",), "observations": ("deployments", "media")}


def table_schema(name: str) -> dict[str, Any]:
    """Return a table's schema (Table Schema), to validate an export where the standard cannot be fetched."""
    fields = []
    for column, kind, *demands in TABLES[name]:
        constraints: dict[str, Any] = {}
        for demand in demands:
            if isinstance(demand, str):
                constraints[demand] = True
            elif demand[0] == "range":
                constraints |= {k: v for k, v in zip(("minimum", "maximum"), demand[1:]) if v is not None}
            else:
                constraints[demand[0]] = list(demand[1:]) if demand[0] == "enum" else demand[1]
        form = {"format": DATETIME} if kind == "datetime" else {}
        fields.append({"name": column, "type": kind, **form, "constraints": constraints})
    keys = [
        {"fields": TABLES[other][0][0], "reference": {"resource": other, "fields": TABLES[other][0][0]}}
        for other in _KEYS.get(name, ())
    ]
    return {
        "name": name,
        "fields": fields,
        "missingValues": ["", "NA", "NaN", "nan"],
        "primaryKey": TABLES[name][0][0],
        **({"foreignKeys": keys} if keys else {}),
    }
