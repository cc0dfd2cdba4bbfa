"""What may be chosen when a LUT is built from evidence; the defaults are what a profile run builds itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from protos.errors import unknown

MEDIAN, P10, MEAN = "median", "p10", "mean"
PLATEAU, PEAK = "plateau", "peak"
POWER, HANNA = "power", "hanna"
LATENCIES = (MEDIAN, P10, MEAN)
ENERGIES = (PLATEAU, PEAK)
ENERGY_FORMS = (POWER, HANNA)
HANNA_VOLTAGE_V = 5.1  # the fixed supply voltage of the HANNA paper (arXiv 1906.07214)


@dataclass(frozen=True)
class Settings:
    """How evidence becomes numbers. Raises BadInputError for a word that is not known.

    latency: which statistic of an operator's executions (the machine's common mode taken out, unusual moments counting
    less). energy: which power of a window, "plateau" (its level in one fit of the whole trace) or "peak" (its highest
    value, median over the windows). energy_form: the formula, "power" is (P_load - P_idle) x t from measured voltages
    and currents, "hanna" is 5.1 V x (I_dynamic - I_idle) x t. correction: whether the sums are corrected with the
    networks that were measured for it.
    """

    latency: str = MEDIAN
    energy: str = PLATEAU
    energy_form: str = POWER
    correction: bool = True

    def __post_init__(self) -> None:
        allowed = (("latency", LATENCIES), ("energy", ENERGIES), ("energy_form", ENERGY_FORMS))
        for name, words in allowed:
            if getattr(self, name) not in words:
                raise unknown(f"--{name.replace('_', '-')}", str(getattr(self, name)), words)

    @classmethod
    def of(cls, document: object) -> Settings:
        """From the record of a LUT's provenance; the defaults for what it does not say."""
        given = document if isinstance(document, dict) else {}
        return cls(**{item.name: given[item.name] for item in fields(cls) if item.name in given})

    def document(self) -> dict[str, object]:
        """What the provenance of a LUT keeps."""
        return asdict(self)


DEFAULT = Settings()

_LATENCY_WORDS = {
    MEDIAN: "median per operator, common mode of the machine taken out",
    P10: "10th percentile per operator, common mode of the machine taken out",
    MEAN: "mean per operator, common mode of the machine taken out",
}
_POWER_WORDS = {
    PLATEAU: "one least-squares fit of the trace",
    PEAK: "highest value of each window above the fitted baseline, median over windows",
}
_FORM_WORDS = {POWER: "(P_load - P_idle) x t", HANNA: f"{HANNA_VOLTAGE_V} V x (I_dynamic - I_idle) x t"}


def latency_words(settings: Settings) -> str:
    """The statistic in words, for the record of the method."""
    return _LATENCY_WORDS[settings.latency]


def energy_words(settings: Settings) -> str:
    """The energy's method in words."""
    return f"{_POWER_WORDS[settings.energy]}, {_FORM_WORDS[settings.energy_form]}"
