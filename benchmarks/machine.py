"""The machine that a benchmark ran on."""

import platform
from pathlib import Path

import psutil


def machine() -> str:
    """Processor and cores."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor()])[0]}, {psutil.cpu_count()} cores"
