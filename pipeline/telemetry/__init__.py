"""The state of a run for the outside: snapshot, metrics, report, status socket."""
