"""Wrong command lines: each command reports the mistake and starts nothing."""

from __future__ import annotations

import pytest

from .operator_harness import Operator

pytestmark = pytest.mark.slow

USAGE = {
    "": "the following arguments are required: COMMAND",
    "frobnicate": "invalid choice: 'frobnicate'",
    "run one.toml two.toml": "unrecognized arguments: two.toml",
    "run --for 0": "--for: must be a number of seconds above 0 and at most 1000000000, not '0'",
    "run --for soon": "a number of seconds above 0 and at most 1000000000, not 'soon'",
    "run --for inf": "--for: must be a number of seconds above 0 and at most 1000000000, not 'inf'",
    "run --report": "--report: expected one argument",
    "check": "the following arguments are required: CONFIG",
    "try forward": "the following arguments are required: CAPTURE",
    "try forward none.pcap -o map": "-o: must be KEY=VALUE, not 'map'",
    "try forward none.pcap -o a=1 -o a=2": 'option "a" is given twice with -o',
    "try forward none.pcap -o a=2026-01-01": "-o.a: must not be a date or time",
    "try forward none.pcap -o a=nan": "-o.a: must be a finite number, not nan",
    f"try forward none.pcap -o a=0x{'F' * 5000}": "-o.a: must be an integer of at most 64 bits",
    f"try forward none.pcap -o a={'9' * 5000}": "none.pcap: there is no such capture file",
    f"try forward none.pcap -o a={'[' * 5000}": "none.pcap: there is no such capture file",
    "bench walking": "unknown measurement 'walking'; choose from handoff, driver, tx",
    "bench compare": "compare needs one folder and nothing else, as in `ringline bench compare",
    "bench compare /": "'/' must be a virtual environment in which ringline is installed",
    "bench --runs 0": "--runs must be from 1 to 1000, not 0",
    "bench --runs 1001": "--runs must be from 1 to 1000, not 1001",
    "bench --seconds nan": "--seconds must be above 0 and at most 3600, not nan",
    "bench --seconds inf": "--seconds must be above 0 and at most 3600, not inf",
    "bench --cpus 0,0": "--cpus must be two CPUs, as in 0,1, not '0,0'",
    "bench --runs many": "--runs: must be an integer, not 'many'",
    "bench --seconds soon": "--seconds: must be a number, not 'soon'",
    "run forward --queues all": "--queues: must be an integer from 1 to 16, not 'all'",
    "run forward --queues 17": "--queues: must be an integer from 1 to 16, not 17",
    "run forward -o map": "-o: must be KEY=VALUE, not 'map'",
    "run forwrd": 'did you mean "forward"?',
    "init edge": "the name of a configuration must end with .toml, not 'edge'",
    "new": "the following arguments are required: NAME",
    "new Guard": "the name of a plugin must be a letter a-z",
    "new guard --tier rust": "--tier: invalid choice: 'rust'",
    "completion": "the following arguments are required: shell",
    "completion csh": "argument shell: invalid choice: 'csh'",
    "status ../passwd": "'../passwd' cannot be the name of an instance",
    "top ../passwd": "'../passwd' cannot be the name of an instance",
}
MISSING = {
    "status nobody": "no instance nobody runs here",
    "status --json nobody": "no instance nobody runs here",
    "top nobody": "no instance nobody runs here",
    f"bench --cpus 0,{'9' * 5000}": "--cpus: CPU 9999999999 cannot be used here; usable: 0",
    "bench --cpus 0,4095": "bench: --cpus: CPU 4095 cannot be used here; usable: 0",
}


@pytest.mark.parametrize("words", USAGE, ids=lambda words: words[:50])
def test_wrong_usage_is_reported(operator: Operator, words: str) -> None:
    ended = operator.run(*words.split())
    assert ended.code == 2
    assert USAGE[words] in ended.errors
    assert not ended.out


@pytest.mark.parametrize("words", MISSING, ids=lambda words: words[:50])
def test_a_missing_instance_or_processor_is_reported(operator: Operator, words: str) -> None:
    assert MISSING[words] in operator.refused(3, *words.split())


@pytest.mark.parametrize("what", ["handoff", "plugin", "latency"])
def test_a_benchmark_for_two_processors_is_refused_on_one(operator: Operator, what: str) -> None:
    sentence = operator.refused(3, "bench", what, within=["taskset", "-c", "0"])
    assert sentence == (
        f"bench: two CPUs are needed for {what}, and only CPU 0 can be used here; "
        "it is enough for driver, tx, pipeline, growth, analyze"
    )
