"""The description of the interface, OpenAPI 3.1, made from the model that is served."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pyarrow as pa

from tiermodel.serving.body import MOST_FEATURE_ROWS, MOST_RAW_ROWS, Wanted

__all__ = ["openapi"]

_NUMBER, _TEXT = {"type": ["number", "null"]}, {"type": ["string", "null"]}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "field": {"type": "string"}},
}
_FAULTS = {
    "400": "The body is no JSON.",
    "401": "The token is missing or wrong.",
    "413": "The body has more bytes or rows than a request may.",
    "415": "The body is not application/json.",
    "422": "A field is missing or of a wrong type, or no row can be read.",
    "503": "The server is busy, or the request took too long; try again.",
}


def openapi(wanted: Wanted, scores: pa.Schema) -> dict[str, Any]:
    """Return the document; `scores` are the columns of an answer."""
    features = dict.fromkeys(wanted.numbers, _NUMBER) | dict.fromkeys(wanted.texts, _TEXT)
    by_features = {
        "type": "object",
        "required": ["as_of", "rows"],
        "properties": {"as_of": {"type": "string", "format": "date"}, "rows": _list(MOST_FEATURE_ROWS, features)},
    }
    by_tables = {
        "type": "object",
        "required": ["as_of"],
        "properties": {
            "as_of": {"type": "string", "format": "date"},
            **{name: {**_list(MOST_RAW_ROWS, {}), "description": f"Rows of data.{name}."} for name in wanted.tables},
        },
        "description": "Rows in the columns of the project's own sources.",
    }
    columns = {field.name: _kind(field.type) for field in scores}
    answer = {
        "model_version": {"type": "string"},
        "as_of": {"type": "string", "format": "date"},
        "scores": {"type": "array", "items": {"type": "object", "properties": columns}},
        "rows": {"type": "object", "description": "Of raw rows, what became of them, by table."},
        "quarantined": {"type": "array", "items": {"type": "object"}, "description": "Rows that break the contract."},
        "warnings": {"type": "array", "items": {"type": "string"}},
    }
    body = {"oneOf": [{"$ref": "#/components/schemas/FeatureRows"}, {"$ref": "#/components/schemas/RawRows"}]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "tiermodel", "version": version("tiermodel")},
        "paths": {
            "/score": {
                "post": {
                    "summary": "Score customers as of a date, from feature rows or from raw rows.",
                    "requestBody": {"required": True, "content": _json(body)},
                    "responses": {"200": _answer("The scores.", {"$ref": "#/components/schemas/Answer"}), **_faults()},
                    "security": [{"token": []}, {}],
                }
            },
            **{path: _get(words) for path, words in _PAGES.items()},
        },
        "components": {
            "schemas": {
                "FeatureRows": by_features,
                "RawRows": by_tables,
                "Answer": {"type": "object", "properties": answer},
                "Error": _ERROR,
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


_PAGES = {
    "/healthz": "Whether the process lives.",
    "/readyz": "Whether a model is ready.",
    "/model": "The model in use: version, levels, features, figures.",
    "/metrics": "Counts and times in Prometheus' text format.",
    "/openapi.json": "This document.",
}


def _get(words: str) -> dict[str, Any]:
    return {"get": {"summary": words, "responses": {"200": {"description": words}}}}


def _faults() -> dict[str, Any]:
    return {status: _answer(words, {"$ref": "#/components/schemas/Error"}) for status, words in _FAULTS.items()}


def _answer(words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": _json(schema)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _list(most: int, fields: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {"customer_id": {"type": "string"}, **fields} if fields else {}
    row = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "array", "maxItems": most, "items": row}


def _kind(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_date(kind):
        return {"type": "string", "format": "date"}
    return {"type": "integer"} if pa.types.is_integer(kind) else _TEXT if pa.types.is_string(kind) else _NUMBER
