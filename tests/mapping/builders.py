"""Builders of thresholds and of the rules that cut a map."""

from gdc.config import PartitionConfig


def absolute(value: float) -> dict[str, object]:
    return {"kind": "absolute", "value": value}


def quantile(value: float) -> dict[str, object]:
    return {"kind": "quantile", "value": value}


def config(
    difficulty: dict[str, object], memorization: dict[str, object], axis: str = "memorization"
) -> PartitionConfig:
    return PartitionConfig.model_validate(
        {"axis": axis, "difficulty": difficulty, "memorization": memorization}
    )
